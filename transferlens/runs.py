"""List the runs of a store, show single runs, or watch their training.

The file of a run, ``<runs>/<dataset>/<run id>.h5``, is complete or absent; during training, ``<run id>.partial`` is its
checkpoint (`transferlens.store.runfile`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Annotated, Any

from transferlens import cli

# What users import from here lives in folders.
from transferlens.measures.classes import UNEVEN
from transferlens.store.arms import arm_names
from transferlens.store.config import RunConfig, Training
from transferlens.store.listing import Listing, RunSummary, failed, list_runs, progress, scan
from transferlens.store.run import Run, check_alike, load_run, load_runs
from transferlens.store.runfile import seal
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule, check_alone
from transferlens.util.files import write_csv
from transferlens.util.terminal import say
from transferlens.util.text import printable, table

__all__ = [
    "Run",
    "RunConfig",
    "RunSummary",
    "Training",
    "arm_names",
    "check_alike",
    "list_runs",
    "load_run",
    "load_runs",
    "scan",
    "seal",
]


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """List the runs of a store: id, accuracy after the last and at the best epoch [%], epochs, time and size.

    The best epoch is that with the highest accuracy on the held-out clips, so its accuracy is optimistic. Compare
    accuracies with chance, and with that of always naming the commonest class of the training clips. Where clips have
    several labels, it is mean average precision (mAP).
    """

    runs: Path = Path("runs")
    """Folder of the run store."""
    ckpt: tuple[Path, ...] = ()
    """Run files to show with all settings, provenance and history, instead of the list."""
    table: bool = False
    """Print the list as csv, with all settings of each run; accuracies are fractions."""
    watch: bool = False
    """Show which runs are being trained, by whom, and which have failed, again and again until Ctrl-C."""
    every: Annotated[float, Rule("greater than 0 and at most 86400 s", lambda every: 0 < every <= 86400)] = 5.0
    """Time between two updates of --watch [s]."""


def _table(summaries: Sequence[RunSummary]) -> str:
    uneven = any(s.class_ratio > UNEVEN for s in summaries)
    several = any(s.score != "accuracy" for s in summaries)
    rows = [
        (
            s.id,
            *([s.score] if several else []),
            f"{100 * s.accuracy_last:.1f}",
            *([f"{100 * s.macro_f1:.1f}" if s.score == "accuracy" else ""] if uneven else []),
            f"{100 * s.chance:.1f}",
            _commonest(s),
            f"{100 * s.accuracy_best:.1f}",
            f"{s.epochs_done}/{s.epochs}",
            f"{s.seconds:.0f}",
            f"{s.nbytes / 1e6:.1f}",
        )
        for s in summaries
    ]
    score, macro = ["score"] if several else [], ["macro-F1 [%]"] if uneven else []
    levels = [*macro, "chance [%]", "commonest [%]"]
    return table([("run", *score, "last [%]", *levels, "best [%]", "epochs", "time [s]", "size [MB]"), *rows])


def _commonest(summary: RunSummary) -> str:
    if summary.score != "accuracy":
        return ""
    return "not known" if isnan(summary.commonest) else f"{100 * summary.commonest:.1f}"


def _shown(value: Any) -> str:
    return "none" if value is None else printable(str(value))


def _details(run: Run) -> str:
    lines = [run.config.id]
    for title, values in (("config", run.config.flat()), ("provenance", run.provenance)):
        lines += [title, *(f"  {key:<18} {_shown(value)}" for key, value in values.items())]
    lines += ["history", "  epoch  " + "  ".join(f"{name:>16}" for name in run.history)]
    for epoch, row in enumerate(zip(*run.history.values(), strict=True), start=1):
        lines.append(f"  {epoch:>5}  " + "  ".join(f"{value:16.5g}" for value in row))
    return "\n".join(lines)


def _watch(folder: Path, every: float) -> None:
    clear = "\033[2J\033[H" if sys.stdout.isatty() else ""  # the only control characters that are printed
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            sys.stdout.write(clear)
            say(f"{time.strftime('%H:%M:%S')}  {progress(folder)}", flush=True)
            time.sleep(every)


def work(options: Options) -> int:
    """List a store, show single runs, or watch their training."""
    if options.ckpt:
        check_alone(options, "ckpt")
        say("\n\n".join(map(_details, load_runs(options.ckpt))))
        return cli.DONE
    if options.every != Options.every and not options.watch:
        raise ParameterError(f"every={options.every:g} goes with watch")
    if options.watch:
        check_alone(options, "watch", beside=("runs", "every"))
        _watch(options.runs, options.every)
        return cli.DONE
    summaries, problems = scan(options.runs)
    if options.table:
        write_csv(Listing(summaries).rows(), None, kind=None if summaries else RunSummary)
    else:
        say(_table(summaries) if summaries else f"no runs in {options.runs}")
        for name, reason in failed(options.runs).items():
            say(f"failed: {name} ({reason})")
    for problem in problems:
        say(problem, error=True)
    return cli.BAD_INPUT if problems else cli.DONE


main = cli.command("runs", Options, work)

if __name__ == "__main__":
    sys.exit(main())
