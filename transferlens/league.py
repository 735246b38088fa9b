"""Which method of attribution can be believed? All methods on the same held-out clips, by many scores.

Each method explains clips of finished networks. Where the evidence is known cell by cell, as in the built-in data sets,
the scores are average precision and pointing; for all data sets they are insertion and deletion, less those of the
*same* map shifted in time, which keeps everything of a map but its relation to the clip. Mere energy and random patches
are rows to compare with. How far noise on the input moves a map, how far a map is that of random weights, how alike
methods are and what they cost is measured, too.

Smoothing and blocks of a method are chosen on other folds than those that are scored, if runs of several folds are
given. Differences of methods are paired by clip, their intervals are over recordings, and p-values are adjusted for the
number of pairs.

In ``synth-shortcut`` a hum goes with a class in the training clips only. Held-out clips with the hum are explained for
that class, and the known answer is the hum: a method that finds it shows the shortcut.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.data.catalogue import DataOptions
from transferlens.data.known_answers import HUMMED
from transferlens.explain import contest
from transferlens.explain.contest import CONTROLS, MAIN, Asked, Entered, Keeper, Maps, Setting, choose
from transferlens.explain.explanations import ExplanationOptions, heldout_clips
from transferlens.explain.scores import subset_of
from transferlens.explain.standings import AgreementRow, ClipRow, DifferenceRow, Row, agreement, differences, means
from transferlens.measures import stats
from transferlens.measures.maps import SMOOTH, Sign
from transferlens.measures.methods import METHODS, TABLE, MethodName
from transferlens.models.device import pick_device
from transferlens.options import FigureOptions
from transferlens.plots import ranking, style
from transferlens.store.arms import arm_names
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule, at_least
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, some, span
from transferlens.util.text import table as aligned

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

SOME = Rule("one or more", bool)
Fill = Literal["silence", "mean", "median"]
# Scores that methods are compared by, two by two, and drawn by: their names in figures.
POINTING, SDR = "points_into_event", "sdr_gain"
CHECKED = ("max_sensitivity", "randomised", "seconds")
ALPHA = 0.05
LABELS = {
    MAIN: "average precision",
    POINTING: "strongest cell in the evidence",
    SDR: "used sound: gain of\nsignal-to-distortion [dB]",
    "max_sensitivity": "max-sensitivity\n(low is stable)",
    "randomised": "rank correlation with\nrandom weights (low is good)",
    "seconds": "seconds per clip",
}


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compare methods of attribution on held-out clips: known answers, insertion and deletion, stability, cost."""

    ckpt: tuple[Path, ...]
    """Run files of one arm and backbone, best of several folds: settings are then chosen on other folds than scored."""
    methods: tuple[MethodName, ...] = ()
    """Methods to compare. Default: all that can explain the networks."""
    clips_per_fold: Annotated[int, at_least(1)] = 16
    """Held-out clips of each run, as many of each class and kind as can be."""
    smooth: Annotated[tuple[Annotated[float, at_least(0)], ...], SOME] = (0.0, 2.0, 4.0, 8.0)
    """Widths of smoothing to choose from [cells]: standard deviations, along both axes."""
    sign: Annotated[tuple[Sign, ...], SOME] = ("signed",)
    """Signs of cells to choose from: signed, positive or absolute."""
    fill: Annotated[tuple[Fill, ...], SOME] = ("silence", "mean", "median")
    """What replaces hidden cells: silence; the mean clip; or the median of each band over the clip's own time."""
    target: str = "true"
    """The class that is explained: true, predicted, or a label."""
    checks: Annotated[int, at_least(0)] = 4
    """Clips per run on which sensitivity to noise and to random weights is measured."""
    estimate: bool = False
    """Explain and score one clip by each method, and print how long the league would take."""
    data: DataOptions = DataOptions()
    store: CacheOptions = CacheOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions()


@dataclass(frozen=True)
class SettingRow:
    """The setting of a method for one fold, and its mean score on the folds that it was chosen on."""

    method: str
    fold: str
    setting: str
    chosen_on: str
    quality: float


@dataclass(frozen=True)
class Result(question.Result):
    """Means of all scores by method and kind of clip, and what they are made of."""

    stem = "league"
    rows: tuple[Row, ...]
    clip_rows: tuple[ClipRow, ...]
    settings: tuple[SettingRow, ...]
    differences: tuple[DifferenceRow, ...]
    agreement: tuple[AgreementRow, ...]
    main: str
    fills: tuple[str, ...]
    title: str
    notes: tuple[str, ...]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the means, the scores of each clip, the settings, the differences, and how alike methods are."""
        return {
            "league": self.rows,
            "league_clips": [row.flat for row in self.clip_rows],
            "league_settings": self.settings,
            "league_differences": self.differences,
            "league_agreement": self.agreement,
        }

    @property
    def order(self) -> list[str]:
        """The methods, the best by the main score first."""
        means = {row.method: row.mean for row in self.of(self.main).values()}
        return sorted(means, key=means.__getitem__, reverse=True)

    def of(self, score: str, subset: str = "all") -> dict[str, Row]:
        """Return the rows of one score by method, of clips of one kind."""
        return {row.method: row for row in self.rows if (row.score, row.subset) == (score, subset)}


@dataclass(frozen=True)
class Estimate(question.Result):
    """How long the league would take: seconds per clip, of each method to explain it, and to score it."""

    stem = "league"
    rows: tuple[dict[str, Any], ...]
    n_clips: int

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return nothing: an estimate is only printed."""
        return {}

    def figures(self) -> dict[str, Figure]:
        """Return nothing."""
        return {}

    def summary(self) -> str:
        """Return the seconds of each method, and how long all clips would take."""
        lines = [("method", "s to explain", "s to score")]
        lines += [(row["method"], f"{row['explain']:.2f}", f"{row['score']:.2f}") for row in self.rows]
        total = self.n_clips * sum(row["explain"] + row["score"] for row in self.rows)
        return f"{aligned(lines)}\n{counted(self.n_clips, 'clip')}: about {total / 60:.0f} minutes, without checks"


# ------------------------------------------------------------------------------------------------ explanations


def _candidates(run: Run, options: Options, is_chosen: bool) -> dict[str, list[Setting]]:
    """Return the settings of each method, and of the controls: only the first one if none is chosen."""
    n_blocks = len(run.config.plan.blocks)
    names = [*dict.fromkeys(options.methods), *CONTROLS]
    default = SMOOTH[0] if SMOOTH[0] in options.smooth or not is_chosen else options.smooth[0]
    found = {name: contest.settings(name, options.smooth, options.sign, n_blocks, default=default) for name in names}
    return found if is_chosen else {name: settings[:1] for name, settings in found.items()}


def _asked(run: Run, options: Options, device: torch.device) -> Asked:
    """Return what is asked of the clips of a run; raise if the target is not one of its labels."""
    if options.target not in ("true", "predicted", *run.label_names):
        raise ParameterError(
            f"target={options.target!r} must be true, predicted, or a label of the run: {', '.join(run.label_names)}"
        )
    compared = [method for method in options.methods if TABLE[method].needs_references]
    how = ExplanationOptions(method=compared[0]) if compared else None
    clips = heldout_clips(run, options.data, options.store.cache, how)
    places = contest.spread(run, 1 if options.estimate else options.clips_per_fold)
    return contest.asked(run, clips.pick(places), device, options.target)


def _able(run: Run, options: Options, device: torch.device) -> tuple[Options, list[str]]:
    """Return the options with the methods that can explain the network, and why others cannot; raise for named ones."""
    named = options.methods
    options, problems = replace(options, methods=named or METHODS), []
    asked = _asked(run, replace(options, estimate=True), device)
    for method in [method for method in options.methods if TABLE[method].limited]:
        try:
            contest.maps_of(asked, Setting(method), ExplanationOptions(), device)
        except ParameterError as error:
            if named:
                raise
            options = replace(options, methods=tuple(other for other in options.methods if other != method))
            problems.append(f"left out: {error}")
    return options, problems


def _entered(
    asked: Asked, candidates: Mapping[str, Sequence[Setting]], options: Options, device: torch.device, bar: Any
) -> Entered:
    """Explain the clips of one run by all methods; if there is a choice, compute the quality of each setting."""
    maps: dict[Setting, Maps] = {}
    qualities: dict[Setting, np.ndarray] = {}
    n, how, keeper = len(asked.targets), ExplanationOptions(), Keeper(asked, options.store.cache, device)
    for method, settings in candidates.items():
        bar.set_postfix_str(f"fold {asked.run.config.fold}, {method}")
        for raw in dict.fromkeys(setting.raw for setting in settings):
            maps[raw] = keeper.maps(raw, how)
            bar.update(n)
        if len(settings) > 1:
            for setting in settings:
                shown, fill = setting.shown(maps[setting.raw].cells), options.fill[0]
                each = functools.partial(contest.qualities, asked, shown, fill, device)
                qualities[setting] = keeper(["quality", fill], setting, each)["quality"]
    return Entered(asked, maps, qualities)


def _chosen(
    entered: Sequence[Entered], candidates: Mapping[str, Sequence[Setting]]
) -> tuple[dict[tuple[str, str], Setting], list[SettingRow]]:
    """Return the setting by method and fold, and the rows that say on which folds it was chosen."""
    chosen, rows = {}, []
    folds = list(dict.fromkeys(entry.fold for entry in entered))
    for (method, settings), fold in itertools.product(candidates.items(), folds):
        setting, mean, on = settings[0], float("nan"), "fixed"
        if len(settings) > 1:
            setting, mean = choose(entered, settings, fold)
            on = f"folds {', '.join(other for other in folds if other != fold)}"
        chosen[method, fold] = setting
        rows.append(SettingRow(method, fold, str(setting), on, mean))
    return chosen, rows


def _scored(entry: Entered, setting: Setting, options: Options, device: torch.device, bar: Any) -> list[ClipRow]:
    """Return one row per clip of one run and method."""
    asked, maps, shown = entry.asked, entry.maps[setting.raw], entry.shown(setting)
    keeper, how, fills = Keeper(asked, options.store.cache, device), ExplanationOptions(), options.fill
    each = functools.partial(contest.all_scores, asked, shown, fills, device)
    scores, checks = keeper.rows(["scores", fills], setting, each), []
    if options.checks:
        each = functools.partial(contest.checks, asked.pick(options.checks), setting, how, device)
        checks = keeper.rows(["checks", options.checks], setting, each)
    rows = []
    for i, clip in enumerate(asked.clips.ids):
        values = scores[i] | (checks[i] if i < len(checks) else {})
        rows.append(
            ClipRow(
                method=setting.method,
                setting=str(setting),
                run=asked.run.config.id,
                fold=entry.fold,
                clip=clip,
                recording=asked.clips.groups[i],
                label=asked.clips.labels[i],
                target=asked.targets[i],
                subset=subset_of(clip, asked.run),
                steps=int(maps.steps[i]),
                scores=values | {"seconds": maps.seconds},
            )
        )
        bar.update()
    return rows


# ------------------------------------------------------------------------------------------------ the question


def _opened(options: Options) -> list[Run]:
    """Open the runs; raise if they are not of one arm."""
    runs = load_runs(options.ckpt, "backbone", "dataset", "labels", "feature settings")
    if others := sorted(set(arm_names(runs)) - {arm_names(runs)[0]}):
        raise ParameterError(
            f"ckpt must be runs of one arm, not of {arm_names(runs)[0]} and {some(others)}: name those of one arm"
        )
    return runs


def _estimate(run: Run, options: Options, n_runs: int, device: torch.device, *, is_chosen: bool) -> Estimate:
    """Explain and score one clip by each method, once with each setting if these are chosen."""
    asked, rows = _asked(run, options, device), []
    candidates = _candidates(run, options, is_chosen)
    for method, settings in candidates.items():
        n_raw = len({setting.raw for setting in settings})
        maps = contest.maps_of(asked, settings[0].raw, ExplanationOptions(), device)
        started = time.perf_counter()
        shown = settings[0].shown(maps.cells)[0]
        contest.scores(asked, 0, shown, options.fill, device)
        for _ in settings if len(settings) > 1 else ():
            contest.quality(asked, 0, shown, options.fill[0], device)
        rows.append({"method": method, "explain": n_raw * maps.seconds, "score": time.perf_counter() - started})
    n_clips = n_runs * min(options.clips_per_fold, len(run.clip_ids))
    return Estimate(tuple(rows), n_clips)


def _notes(runs: Sequence[Run], is_chosen: bool) -> list[str]:
    """Return what a reader must know: how settings were chosen, and whether networks fall for a planted hum."""
    how = "settings of each fold chosen on the other folds" if is_chosen else "one fold: settings are fixed, not chosen"
    counts = [contest.fooled(run) for run in runs]
    n_fooled, n = (sum(values) for values in zip(*counts, strict=True))
    hum = f"networks take {n_fooled} of {n} held-out clips with the hum, of other classes, for {HUMMED}"
    return [how, hum] if n else [how]


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result | Estimate:
    """Explain held-out clips of the runs that the options name by all methods, and score the maps."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = _opened(options)
    options, left_out = _able(trained[0], options, device)
    is_chosen = len({run.config.fold for run in trained}) > 1
    if options.estimate:
        return _estimate(trained[0], options, len(trained), device, is_chosen=is_chosen)
    candidates = _candidates(trained[0], options, is_chosen)
    all_asked = [_asked(run, options, device) for run in trained]
    n_clips = sum(len(asked.targets) for asked in all_asked)
    n_maps = sum(len({setting.raw for setting in settings}) for settings in candidates.values())
    with tqdm.tqdm(total=n_clips * n_maps, unit="map", desc="explaining", disable=None) as bar:
        entered = [_entered(asked, candidates, options, device, bar) for asked in all_asked]
    chosen, settings = _chosen(entered, candidates)
    rows: list[ClipRow] = []
    with tqdm.tqdm(total=n_clips * len(candidates), unit="map", desc="scoring", disable=None) as bar:
        for method, entry in itertools.product(candidates, entered):
            rows += _scored(entry, chosen[method, entry.fold], options, device, bar)
    shown = {
        method: np.concatenate([entry.shown(chosen[method, entry.fold]) for entry in entered]) for method in candidates
    }
    gain = f"insertion_{options.fill[0]}_gain"
    main = gain if all_asked[0].masks is None else MAIN
    config = trained[0].config
    return Result(
        rows=tuple(means(rows)),
        clip_rows=tuple(rows),
        settings=tuple(settings),
        differences=tuple(differences(rows, list(dict.fromkeys([main, POINTING, gain, SDR])))),
        agreement=tuple(agreement(shown)),
        main=main,
        fills=options.fill,
        title=f"{config.backbone}, {config.dataset}, {counted(len(trained), 'run')}",
        notes=(*_notes(trained, is_chosen), *left_out),
    )


def _label(score: str) -> str:
    """Return the name of a score in figures."""
    way, _, fill = score.removesuffix("_gain").partition("_")
    return LABELS.get(score) or f"{way}, {fill}:\nbetter than shifted in time"


def summary(result: Result) -> str:
    """Return who leads by the main score and which methods it is better than, and the means of the main scores."""
    best, others = result.order[0], result.order[1:]
    row = result.of(result.main)[best]
    head = f"{best} leads by {_label(result.main).replace(chr(10), ' ')}: {row.mean:.2f} ({span(row.low, row.high, 2)})"
    lines = [f"{result.title}: {head}, {stats.clips_text(row.n, row.n_recordings)}"]
    found = {
        each.other if each.method == best else each.method: each
        for each in result.differences
        if (each.score, each.subset) == (result.main, "all") and best in (each.method, each.other)
    }
    same = [other for other in others if other in found and not found[other].p_adjusted < ALPHA]
    lines.append(f"not better than (adjusted p at least {ALPHA:g}): {', '.join(same) or 'none'}")
    if others and (each := found.get(others[0])):
        sign = 1 if each.method == best else -1
        low, high = sorted((sign * each.low, sign * each.high))
        lines.append(f"ahead of {others[0]} by {sign * each.difference:.3f} ({span(low, high, 3)}), n = {each.n}")
    return "\n".join([*lines, *result.notes, _table(result)])


def _table(result: Result) -> str:
    """Return the main scores by method as text."""
    subsets = [subset for subset in dict.fromkeys(row.subset for row in result.rows) if subset != "all"]
    fill = result.fills[0]
    columns = [(result.main, subset) for subset in ("all", *(subsets if len(subsets) > 1 else ()))]
    names = [POINTING, f"insertion_{fill}", f"insertion_{fill}_gain", f"deletion_{fill}_gain", SDR, *CHECKED]
    columns += [(name, "all") for name in names if name != result.main and result.of(name)]
    lines = [["method", *(name if subset == "all" else subset for name, subset in columns)]]
    for method in result.order:
        cells = [result.of(*column).get(method) for column in columns]
        lines.append([method, *("" if row is None else f"{row.mean:.2f}" for row in cells)])
    return aligned(lines)


def draw(result: Result) -> Figure:
    """Draw the scores of every method, and how alike the methods are."""
    order = result.order
    subsets = list(dict.fromkeys(["all", *(row.subset for row in result.rows)]))
    subsets = subsets if len(subsets) > 2 else ["all"]
    ways = [f"{way}_{fill}_gain" for way in ("insertion", "deletion") for fill in result.fills[:1]]
    above = [score for score in (MAIN, POINTING, *ways, SDR) if result.of(score)]
    below = [score for score in CHECKED if result.of(score)]
    height = 1.3 + 0.3 * len(order)
    fig, parts = style.new_parts([1, 1.25], width=3.3 * max(4, len(above)), height=2.35 * height)
    palette = style.colours(subsets)
    for part, scores in ((parts[0], above), (parts[1], below)):
        own = style.subplots(part, 1, len(scores) + (part is parts[1]), **_widths(part is parts[1], len(scores)))[0]
        if part is parts[1]:
            _draw_agreement(result, own[0])
            own = own[1:]
        for i, (ax, score) in enumerate(zip(own, scores, strict=True)):
            kinds = subsets if score in above else ["all"]
            series = {subset: result.of(score, subset) for subset in kinds}
            ranking.ranking(series, order=order, palette=palette, xlabel=_label(score), ax=ax)
            if i or part is parts[1]:
                ax.set_yticklabels([])
            if score in ("seconds", "max_sensitivity"):
                ax.set_xscale("log")
    row = result.of(result.main)[order[0]]
    about = f"{result.title}: means over {stats.clips_text(row.n, row.n_recordings)}, 95 % intervals"
    style.title(fig, about)
    if len(subsets) > 1:
        fig.legend(handles=style.handles(palette), loc="outside lower center", ncols=len(palette), frameon=False)
    return fig


def _widths(has_map: bool, n: int) -> dict[str, Any]:
    return {"gridspec_kw": {"width_ratios": [2.2] + [1] * n}} if has_map else {}


def _draw_agreement(result: Result, ax: Any) -> None:
    """Draw the rank correlations of any two methods."""
    values = {(row.method, row.other): row.correlation for row in result.agreement}
    correlations = np.array([[values[a, b] for b in result.order] for a in result.order])
    ranking.agreement_map(correlations, names=result.order, ax=ax)
    ax.set_title("rank correlation of maps, mean over clips", fontsize="small", loc="left")


league = question.Question("league", Options, analyse, first="ckpt")
main = cli.command("league", Options, league)

if __name__ == "__main__":
    sys.exit(main())
