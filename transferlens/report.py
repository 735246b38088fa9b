"""A whole study as one page: a run store and a folder of figures in one self-contained HTML file.

The page has the runs of the store, the paper's tables, every figure with a caption, and what can be explored: learning
curves and scores by class of all arms, their confusion matrices, whose clips can be heard and seen, arms against each
other, and held-out clips with each network's predictions and attributions, and what it used and ignored as sounds. It
opens from disk and needs no network connection. In Python, ``figures`` is the folder whose figures the page shows;
``write`` puts the page, ``report.html``, into a folder of its own choice.
"""

from __future__ import annotations

import base64
import collections
import csv
import datetime
import itertools
import logging
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from transferlens import __version__, cli
from transferlens.compare import question
from transferlens.compare.captions import FIGURES, LABEL_COLUMNS, TABLES
from transferlens.compare.overview import Overview, overview, surest
from transferlens.compare.published import ARMS, caption, cells, has_paper, head, lines
from transferlens.data.catalogue import DataOptions
from transferlens.explain.explanations import ExplanationOptions
from transferlens.explain.explorer import Entry, entries
from transferlens.explain.heard import heard
from transferlens.features.cache import FeatureCache
from transferlens.measures.attribution import STEPS
from transferlens.measures.classes import UNEVEN
from transferlens.measures.scoring import ONE
from transferlens.models.device import pick_device
from transferlens.models.weights import IMAGENET
from transferlens.options import OutputOptions
from transferlens.store.listing import RunSummary, no_run, usable
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import StoreOptions
from transferlens.util.errors import DataError
from transferlens.util.fields import Fields, above, at_least
from transferlens.util.files import plain_cell
from transferlens.util.grouping import group_by
from transferlens.util.lazy import jinja2
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted

log = logging.getLogger(__name__)

MOST_LINES = 200
MB = 1e6
NO_ARMS = Overview([], [], [], [])
SPARE = 20_000  # bytes for words about the clips
SIGNATURE = b"\x89PNG\r\n\x1a\n"  # at the start of a PNG image


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """One self-contained HTML page of a run store and a folder of figures, with an explorer of clips.

    Scores, curves and figures are of all runs of the store. --dataset or --clips choose only what can be heard: the
    clips of the explorer, and the mistakes.
    """

    ckpt: tuple[Path, ...] = ()
    """Runs that the explorer shows, with the same held-out clips. Default: one of each arm, on the data set, backbone
    and fold with most runs."""
    explore: Annotated[int, at_least(0)] = 40
    """Clips in the explorer; 0 leaves it out."""
    mistakes: Annotated[int, at_least(0)] = 60
    """Further clips to hear and see in confusion matrices: the surest mistakes of all arms; 0 leaves them out."""
    budget: Annotated[float, above(0)] = 25
    """Largest size of the page [MB]: further clips are left out."""
    max_steps: Annotated[int, STEPS] = 64
    """Largest number of gradients per clip for Integrated Gradients."""
    data: DataOptions = DataOptions()
    store: StoreOptions = StoreOptions()
    execution: DeviceOptions = DeviceOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True)
class Group:
    """Runs that differ by fold and seed alone, in words; macro-F1 where classes are uneven, mAP with several labels."""

    dataset: str
    backbone: str
    arm: str
    setting: str
    folds: str
    seeds: str
    n: int
    accuracy: str
    macro_f1: str
    minutes: str


def groups(summaries: Sequence[RunSummary]) -> list[Group]:
    """Return a row for all runs that differ by fold and seed alone."""
    rows = [_group(runs) for runs in group_by(summaries, lambda run: run.config.arm_key).values()]
    return sorted(rows, key=lambda row: (row.dataset, row.backbone, row.arm, row.setting))


def _group(runs: Sequence[RunSummary]) -> Group:
    config, values = runs[0].config, [100 * run.accuracy_last for run in runs]
    score = "" if runs[0].score == ONE.name else f"{runs[0].score} "
    uneven = any(run.class_ratio > UNEVEN for run in runs)
    others = sorted({run.weights for run in runs} - {"", IMAGENET})
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return Group(
        dataset=config.dataset,
        backbone=config.backbone,
        arm=", ".join([config.plan.title, *others, *(["nested selection"] if config.inner_fold else [])]),
        setting=config.setting,
        folds=" ".join(sorted({run.config.fold for run in runs})),
        seeds=" ".join(map(str, sorted({run.config.seed for run in runs}))),
        n=len(runs),
        accuracy=f"{score}{np.mean(values):.1f}{spread}",
        macro_f1=f"{100 * np.mean([run.macro_f1 for run in runs]):.1f}" if uneven else "",
        minutes=f"{sum(run.seconds for run in runs) / 60:.0f}",
    )


def _images(folder: Path) -> dict[str, bytes]:
    """Return the PNG images of a folder by their stems; raise if files of that name are not images."""
    images = {path: path.read_bytes() for path in sorted(folder.glob("*.png")) if path.is_file()}
    if wrong := [path for path, content in images.items() if not content.startswith(SIGNATURE)]:
        raise DataError("; ".join(f"{path} is not a PNG image: draw it again, or delete it" for path in wrong))
    return {path.stem: content for path, content in images.items()}


def _figures(images: Mapping[str, bytes], folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return figures for the page, in the order of the questions, then others; and the titles of missing ones."""
    others = {stem: (stem, f"{stem}.png, as found in the folder.") for stem in images if stem not in FIGURES}
    figures = []
    for stem, (title, text) in (FIGURES | others).items():
        if stem in images:
            text = _caption(text, folder / f"{stem}.csv")
            image = f"data:image/png;base64,{base64.b64encode(images[stem]).decode()}"
            figures.append({"stem": stem, "title": title, "text": text, "alt": f"{title}. {text}", "image": image})
    return figures, [f"{title} ({stem}.png)" for stem, (title, _) in FIGURES.items() if stem not in images]


def _caption(text: str, table: Path) -> str:
    """Return a caption, with mAP for accuracy where the table of the figure has it."""
    if not table.is_file() or "mAP" not in table.read_text(encoding="utf-8", errors="replace").partition("\n")[0]:
        return text
    return text.replace("Accuracy", "mAP").replace("accuracy", "mAP").replace("accuracies", "mAP")


def _tables(folder: Path) -> list[dict[str, Any]]:
    """Return the tables of `classes` that a folder has, as text; raise if files of these names are not tables."""
    tables = []
    for stem, (title, columns) in TABLES.items():
        if (path := folder / f"{stem}.csv").is_file():
            try:
                rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
                columns = LABEL_COLUMNS if rows and "average_precision" in rows[0] else columns
                lines = [[_cell(row[name], head) for name, head in columns.items()] for row in rows[:MOST_LINES]]
            except (KeyError, TypeError, UnicodeDecodeError, ValueError, csv.Error) as error:
                raise DataError(f"{path} is not a table of transferlens.classes: run it again, or delete it") from error
            more = len(rows) - len(lines)
            tables.append(
                {"title": title, "head": [*columns.values()], "lines": lines, "more": more, "file": path.name}
            )
    return tables


def _cell(text: str, head: str) -> str:
    """Return a cell as text; a fraction as per cent, if the head of its column says so."""
    return f"{100 * float(text):.1f}" if head.endswith("[%]") else plain_cell(text)


def _of_clips(summaries: Sequence[RunSummary], options: Options) -> Sequence[RunSummary]:
    """Return the runs that were trained on the clips that the options name; if there are none, all runs."""
    if options.data.clips is None and options.data.dataset is None:
        return summaries
    dataset, settings = options.data.open(), {run.config.features for run in summaries}
    keys = {features: FeatureCache(dataset, features, options.store.cache).data_key for features in settings}
    return [run for run in summaries if run.config.data_key == keys[run.config.features]] or summaries


def _default_runs(summaries: Sequence[RunSummary]) -> list[Run]:
    """Load one pretrained run and one from scratch, of the data set, backbone and fold with most runs."""
    usual = (run for run in summaries if run.config.plan in ARMS.values() and not run.config.inner_fold)
    runs = [run for run in usual if run.config.scoring is ONE]  # the explorer asks whether the class is right
    places = group_by(runs, lambda run: (run.config.data_key, run.config.backbone, run.config.fold))
    most = max(places.values(), key=lambda runs: (len({run.config.plan for run in runs}), len(runs)), default=[])
    arms = group_by(most, lambda run: run.config.plan)
    return load_runs([_commonest(arms[plan]).path for plan in ARMS.values() if plan in arms], least=0)


def _commonest(summaries: Sequence[RunSummary]) -> RunSummary:
    """Return the first seed of the settings that most of these runs have."""
    counts = collections.Counter(run.config.arm_key for run in summaries)
    return min(summaries, key=lambda run: (-counts[run.config.arm_key], run.config.seed))


def _fitting(clips: Sequence[Entry], room: float) -> list[Entry]:
    """Return as many clips as there is room for [bytes], evenly over all: right and wrong ones of every class."""
    for n in range(len(clips), 0, -1):
        some = [clips[i] for i in np.linspace(0, len(clips) - 1, n).round().astype(int)]
        if sum(clip.nbytes for clip in some) <= room:
            return some
    return []


def _surest_fitting(clips: Sequence[Entry], room: float) -> list[Entry]:
    """Return the first clips, which are the surest mistakes, that there is room for [bytes]."""
    ends = itertools.accumulate(clip.nbytes for clip in clips)
    return [clip for clip, end in zip(clips, ends, strict=True) if end <= room]


def page(
    summaries: Sequence[RunSummary],
    problems: Sequence[str],
    folder: Path,
    clips: Sequence[Entry],
    *,
    store: str,
    budget: float,
    arms: Overview = NO_ARMS,
    mistakes: Sequence[Entry] = (),
) -> str:
    """Return the page as HTML, with as many clips as fit into the budget [MB].

    `problems` are the reasons why files of the store cannot be used, `folder` holds the figures, `store` is a name,
    `clips` are those of the explorer, and `mistakes` others to hear. At most a quarter of the room is for `mistakes`.
    """
    common = _content(summaries, problems, folder, store, budget) | {"arms": arms.within(budget * MB / 4).plain()}
    base = _render(common, [], [], 0)
    room = budget * MB - len(base.encode(errors="backslashreplace")) - SPARE
    if room < 0 and (clips or mistakes):
        log.warning("the budget of %g MB has no room for a clip besides the figures", budget)
    kept = _fitting(clips, room - min(room / 4, sum(clip.nbytes for clip in mistakes)))
    others = _surest_fitting(mistakes, room - sum(clip.nbytes for clip in kept))
    return _render(common, kept, others, len(clips) - len(kept))


def _render(common: Mapping[str, Any], clips: Sequence[Entry], mistakes: Sequence[Entry], left_out: int) -> str:
    """Return the page as HTML, with these clips."""
    loader = jinja2.PackageLoader("transferlens")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)
    environment.globals["content_of"] = lambda name: loader.get_source(environment, name)[0]
    return environment.get_template("report.html").render(
        **common,
        clips=[asdict(clip) for clip in clips],
        mistakes=[asdict(clip) for clip in mistakes],
        left_out=left_out,
        has_sound=any(clip.sound for clip in clips),
    )


def _content(
    summaries: Sequence[RunSummary], problems: Sequence[str], folder: Path, store: str, budget: float
) -> dict[str, Any]:
    """Return what the page says of runs and figures."""
    done = [run for run in summaries if run.is_complete]
    figures, missing = _figures(_images(folder), folder)
    filled = cells(done)
    return {
        "title": f"transferlens: {', '.join(sorted({run.config.dataset for run in done}))}",
        "store": store,
        "n_runs": len(done),
        "unfinished": len(summaries) - len(done),
        "date": datetime.date.today().isoformat(),
        "version": __version__,
        "groups": groups(done),
        "uneven": any(run.class_ratio > UNEVEN for run in done),
        "problems": problems,
        "caption": caption(filled),
        "head": head(filled),
        "has_paper": has_paper(filled),
        "lines": lines(filled),
        "figures": figures,
        "figures_folder": str(folder),
        "missing": missing,
        "by_class": _tables(folder),
        "budget": f"{budget:g}",
    }


@dataclass(frozen=True)
class Result(question.Result):
    """The page, one row per group of runs, and why files of the store cannot be used."""

    stem = "report"
    rows: tuple[Group, ...]
    page: str
    folder: Path
    n_figures: int
    problems: tuple[str, ...]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return no table: those of the folder are in the page."""
        return {}

    def texts(self) -> dict[str, str]:
        """Return the page."""
        return {"report.html": self.page}

    def summary(self) -> str:
        """Return what the page holds, where its figures are from, and its size."""
        parts = f"{counted(len(self.rows), 'group')} of runs, {counted(self.n_figures, 'figure')} of {self.folder}"
        return f"{parts}, {len(self.page.encode(errors='backslashreplace')) / MB:.1f} MB"


def _mistakes(arms: Overview, ids: Set[str], shown: Set[str], options: Options) -> list[Entry]:
    """Return the clips that arms of these runs are surest of and wrong, except those that are shown already."""
    sides = [side for side in arms.sides if {run.config.id for run in side.runs} <= ids]
    if not sides or not options.mistakes:
        return []
    # Options name one data set; without them it is the one with most arms.
    most = collections.Counter(side.runs[0].config.dataset for side in sides).most_common(1)[0][0]
    sides = [side for side in sides if side.runs[0].config.dataset == most]
    chosen = [(run, clip) for run, clip in surest(sides, options.mistakes + len(shown)) if clip not in shown]
    return heard(chosen[: options.mistakes], options.data, options.store.cache)


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Read the store, explain clips, and make the page."""
    device, folder, store = pick_device(options.execution.device), options.output.figures, options.store
    keep_freed_memory()
    _images(folder), _tables(folder)  # raise what would fail later
    summaries, problems = usable(store.runs)
    done = [run for run in summaries if run.is_complete]
    named = load_runs(options.ckpt, least=0)
    if not done:
        raise no_run(store.runs, problems)
    question.check_labels("report --ckpt", {str(run.path): run.config.labels_per_clip for run in named})
    arms = overview(load_runs(done, least=0))
    of_clips = _of_clips(done, options)
    shown = named or _default_runs(of_clips)
    clips: list[Entry] = []
    if options.explore and shown:
        how = ExplanationOptions(max_steps=options.max_steps)
        clips = entries(shown, options.data, store.cache, n_clips=options.explore, how=how, device=device)
    mistakes = _mistakes(arms, {run.id for run in of_clips}, {clip.clip for clip in clips}, options)
    name, budget = store.runs.resolve().name, options.budget
    text = page(summaries, problems, folder, clips, arms=arms, mistakes=mistakes, store=name, budget=budget)
    return Result(tuple(groups(done)), text, folder, len(_images(folder)), tuple(problems))


report = question.Question("report", Options, analyse, first="runs", of_command=(), several=True)
main = cli.command("report", Options, report)

if __name__ == "__main__":
    sys.exit(main())
