"""One page for a whole study: a run store and a folder of figures as one self-contained HTML file.

What was run, the paper's tables, every figure with what it shows, and an explorer of held-out clips: hear a clip, see
its spectrogram and each network's attributions and predictions, and hear what was used and what was ignored. The file
needs no network and opens from disk.
"""

from __future__ import annotations

import base64
import collections
import datetime
import importlib.resources
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from transferlens import __version__, cli
from transferlens.compare import question
from transferlens.compare.published import ARMS, CAPTION, HEAD, cells, lines
from transferlens.data.catalogue import DataOptions
from transferlens.explain.explanations import ExplanationOptions
from transferlens.explain.explorer import Entry, entries
from transferlens.features.cache import FeatureCache
from transferlens.measures.attribution import check_options
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.options import OutputOptions
from transferlens.store.listing import RunSummary, damaged, scan
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import StoreOptions
from transferlens.util.errors import CheckpointError, DataError
from transferlens.util.fields import Fields, Rule, at_least
from transferlens.util.lazy import jinja2
from transferlens.util.processes import keep_freed_memory

log = logging.getLogger(__name__)

__all__ = ["FIGURES", "Options", "main", "page"]

# Stem of a figure -> its title and what it shows.
FIGURES = {
    "pretrained_vs_scratch": (
        "Question 1: pretrained against random initialisation",
        "Left: accuracy of each fold (dots) with mean and 95 % interval (diamond); hollow dots are the epoch best on "
        "the held-out fold, which is optimistic. Right: held-out accuracy by epoch.",
    ),
    "freeze": (
        "Question 2: frozen blocks",
        "Accuracy where the blocks up to K stay as ImageNet made them, and only the rest is trained.",
    ),
    "fuse": (
        "Question 2: partial pretrained weights",
        "Accuracy where only the blocks up to K begin with ImageNet's weights, and the others at random.",
    ),
    "truncate": (
        "Question 2: truncation",
        "Accuracy of the network cut after Block K, pretrained and from scratch, and against its size.",
    ),
    "plan_grid": ("Question 2: the plan space", "Accuracy over truncation and pretraining or freezing, by block."),
    "svcca": (
        "Question 2: change of representations",
        "SVCCA of every layer before and after training against depth: 1 is unchanged up to a linear map. The hatched "
        "band is the noise floor of two seeds, dots below it the level of independent noise.",
    ),
    "svcca_matrix": (
        "Question 2: blocks against blocks",
        "Linear CKA of each block's pooled output with every other's, before and after training.",
    ),
    "input_form": (
        "Question 3: the form of the input",
        "Accuracy with other windows, fit and normalisation, and what a resize to one width leaves of time stretching.",
    ),
    "ensemble": (
        "Question 4: ensembles",
        "Accuracy of single networks and ensembles, accuracy against size, where the gain comes from, and calibration.",
    ),
    "robustness": (
        "Question 4: robustness",
        "Accuracy of single networks (dashed) and ensembles (full) as the held-out clips are corrupted.",
    ),
    "selection": (
        "Which epoch is reported",
        "Accuracy after the last epoch, at the epoch best on the held-out fold, and at that chosen on an inner fold.",
    ),
    "saliency": (
        "Question 5: what the networks look at",
        "Attributions of held-out clips: red cells speak for the target class, blue ones against it.",
    ),
    "saliency_summary": (
        "Question 5: the claims as numbers",
        "Where attributions lie, whether they are faithful, and what randomising blocks does to them.",
    ),
}
MB = 1e6
# How a PNG image begins.
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """One self-contained HTML page of a run store and a folder of figures, with an explorer of clips."""

    ckpt: tuple[Path, ...] = ()
    """Runs that the explorer shows, with the same held-out clips. Default: one of each arm, on the data set, backbone
    and fold with most runs."""
    explore: Annotated[int, at_least(0)] = 40
    """Clips in the explorer; 0 leaves it out."""
    budget: Annotated[float, Rule("greater than 0 MB", lambda value: 0 < value < float("inf"))] = 25
    """Largest size of the page [MB]: clips beyond are left out."""
    max_steps: int = 64
    """Gradients of a clip after which Integrated Gradients stop."""
    data: DataOptions = DataOptions()
    store: StoreOptions = StoreOptions()
    execution: DeviceOptions = DeviceOptions()
    output: OutputOptions = OutputOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(tolerance=ExplanationOptions.tolerance, max_steps=self.max_steps)


@dataclass(frozen=True)
class Group:
    """Runs that differ by fold and seed alone, in words."""

    dataset: str
    backbone: str
    arm: str
    setting: str
    folds: str
    seeds: str
    n: int
    accuracy: str
    minutes: str


def groups(summaries: Sequence[RunSummary]) -> list[Group]:
    """What was run, an entry for all that differ by fold and seed alone."""
    kinds: dict[tuple, list[RunSummary]] = {}
    for summary in summaries:
        kinds.setdefault(summary.config.arm_key, []).append(summary)
    found = []
    for mine in kinds.values():
        config = mine[0].config
        values = [100 * s.accuracy_last for s in mine]
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        found.append(
            Group(
                dataset=config.dataset,
                backbone=config.backbone,
                arm=config.plan.title + (", nested selection" if config.inner_fold else ""),
                setting=config.setting,
                folds=" ".join(sorted({s.config.fold for s in mine})),
                seeds=" ".join(map(str, sorted({s.config.seed for s in mine}))),
                n=len(mine),
                accuracy=f"{np.mean(values):.1f}{spread}",
                minutes=f"{sum(s.seconds for s in mine) / 60:.0f}",
            )
        )
    return sorted(found, key=lambda g: (g.dataset, g.backbone, g.arm, g.setting))


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.png")) if path.is_file()]


def _no_images(folder: Path) -> list[str]:
    """What is wrong with files that are called PNG images."""
    wrong = [path for path in _images(folder) if not path.read_bytes().startswith(SIGNATURE)]
    return [f"{path} is no PNG image: draw it again, or delete it" for path in wrong]


def _figures(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The figures of a folder, known ones first in the order of the questions; and titles of those that are not."""
    there = {path.stem: path for path in _images(folder)}
    stems = [stem for stem in FIGURES if stem in there] + [stem for stem in there if stem not in FIGURES]
    found = []
    for stem in stems:
        title, text = FIGURES.get(stem, (stem, f"{stem}.png, as found in the folder."))
        data = base64.b64encode(there[stem].read_bytes()).decode()
        found.append(
            {
                "stem": stem,
                "title": title,
                "text": text,
                "alt": f"{title}. {text}",
                "image": f"data:image/png;base64,{data}",
            }
        )
    return found, [f"{title} ({stem}.png)" for stem, (title, _) in FIGURES.items() if stem not in there]


def _of_clips(summaries: Sequence[RunSummary], options: Options) -> Sequence[RunSummary]:
    """Those trained on the clips that the options name, if they name any that some were trained on."""
    if options.data.clips is None and options.data.dataset is None:
        return summaries
    dataset = options.data.open()
    keys = {
        each: FeatureCache(dataset, each, options.store.cache).data_key
        for each in {s.config.features for s in summaries}
    }
    return [s for s in summaries if s.config.data_key == keys[s.config.features]] or summaries


def _default_runs(summaries: Sequence[RunSummary]) -> list[Run]:
    """The runs that are explored: pretrained and from scratch, on the data set, backbone and fold with most runs."""
    plans = list(ARMS.values())
    by_place: dict[tuple, dict[TransferPlan, list[RunSummary]]] = {}
    for summary in summaries:
        config = summary.config
        if config.plan in plans and not config.inner_fold:
            arms = by_place.setdefault((config.data_key, config.backbone, config.fold), {})
            arms.setdefault(config.plan, []).append(summary)
    if not by_place:
        return []
    most = max(by_place.values(), key=lambda arms: (len(arms), sum(map(len, arms.values()))))
    return load_runs([_commonest(most[plan]).path for plan in plans if plan in most], least=0)


def _commonest(summaries: Sequence[RunSummary]) -> RunSummary:
    """The first seed of the settings that most of these runs have."""
    counts = collections.Counter(s.config.arm_key for s in summaries)
    return min(summaries, key=lambda s: (-counts[s.config.arm_key], s.config.seed))


def _fitting(clips: Sequence[Entry], room: float) -> list[Entry]:
    """As many clips as there is room for [bytes], evenly over all: wrong and right ones, and every class."""
    for n in range(len(clips), 0, -1):
        some = [clips[i] for i in np.linspace(0, len(clips) - 1, n).round().astype(int)]
        if sum(clip.nbytes for clip in some) <= room:
            return some
    return []


def page(
    summaries: Sequence[RunSummary],
    problems: Sequence[str],
    folder: Path,
    clips: Sequence[Entry],
    *,
    store: str,
    budget: float,
) -> str:
    """The page as HTML.

    Parameters
    ----------
    summaries : sequence of RunSummary
    problems : sequence of str
        What is wrong with files of the store that are no runs.
    folder : Path
        Of the figures.
    clips : sequence of Entry
        Of the explorer: where they are beyond the budget, as many as fit, evenly.
    store : str
        What the store is called.
    budget : float [MB]
    """
    done = [s for s in summaries if s.is_complete]
    figures, missing = _figures(folder)
    found = cells(done)
    room = budget * MB - sum(len(figure["image"]) for figure in figures) - 0.1 * MB
    if room < 0:
        log.warning("the budget of %g MB has no room for a clip beside the figures", budget)
    kept = [asdict(clip) for clip in _fitting(clips, room)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = importlib.resources.files("transferlens").joinpath("templates/report.html").read_text(encoding="utf-8")
    names = sorted({s.config.dataset for s in done})
    return environment.from_string(template).render(
        title=f"transferlens: {', '.join(names)}",
        store=store,
        n_runs=len(done),
        unfinished=len(summaries) - len(done),
        date=datetime.date.today().isoformat(),
        version=__version__,
        groups=groups(done),
        problems=problems,
        caption=CAPTION,
        head=HEAD,
        lines=lines(found),
        figures=figures,
        figures_folder=str(folder),
        missing=missing,
        clips=kept,
        left_out=len(clips) - len(kept),
        budget=f"{budget:g}",
        has_sound=any(clip["sound"] for clip in kept),
    )


@dataclass(frozen=True)
class Result(question.Result):
    """The page, one row per group of runs, and what is wrong with files of the store."""

    stem = "report"
    rows: tuple[Group, ...]
    page: str
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """2 where files cannot be used."""
        return cli.BAD_INPUT if self.problems else cli.DONE

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return no table: those of the folder are in the page."""
        return {}

    def texts(self) -> dict[str, str]:
        """Return the page."""
        return {"report.html": self.page}

    def summary(self) -> str:
        """Return the size of the page."""
        return f"{len(self.rows)} groups of runs, {len(self.page.encode()) / MB:.1f} MB"


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Read the store, explain clips, and make the page."""
    device, folder = pick_device(options.execution.device), options.output.figures
    keep_freed_memory()
    if wrong := _no_images(folder):
        raise DataError("; ".join(wrong))
    summaries, problems = scan(options.store.runs)
    summaries = list({summary.id: summary for summary in summaries}.values())  # a copy is no other run
    bad = damaged(summary for summary in summaries if summary.is_complete)
    problems = [*problems, *bad.values()]
    summaries = [summary for summary in summaries if summary.id not in bad]
    done = [summary for summary in summaries if summary.is_complete]
    named = load_runs(options.ckpt, least=0)
    if not done:
        raise CheckpointError(f"runs={str(options.store.runs)!r} has no finished run: train some first")
    clips: list[Entry] = []
    if options.explore:
        shown = named or _default_runs(_of_clips(done, options))
        how = ExplanationOptions(max_steps=options.max_steps)
        if shown:
            clips = entries(shown, options.data, options.store.cache, n_clips=options.explore, how=how, device=device)
    name = options.store.runs.resolve().name
    text = page(summaries, problems, folder, clips, store=name, budget=options.budget)
    return Result(tuple(groups(done)), text, tuple(problems))


report = question.Question("report", Options, analyse, first="runs")
main = cli.command("report", Options, report)

if __name__ == "__main__":
    sys.exit(main())
