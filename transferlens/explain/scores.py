"""Scores of explanations as tables: one row per clip, means with intervals, and cascading randomisation.

`transferlens.saliency` writes them. The scores themselves are those of `transferlens.measures.faithfulness`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from transferlens.data.known_answers import is_generated, spec
from transferlens.explain.explanations import Explained, ExplanationOptions, randomised
from transferlens.measures import stats
from transferlens.measures.faithfulness import (
    CONTROLS,
    areas,
    claims,
    known_answer,
    mean_product,
    patches,
    ranks,
    shifted,
)
from transferlens.measures.methods import TABLE
from transferlens.store.run import Run
from transferlens.util.grouping import group_by

# Scores that are 1 or 0 for each clip.
HITS = ("points_into_event", "points_into_event_energy")
# Range of scores; that of all others is 0 to 1.
BOUNDS = {"energy_correlation": (-1.0, 1.0), "edge_correlation": (-1.0, 1.0)}


def faithfulness(explained: Explained, i: int) -> dict[str, float]:
    """Compute the areas under insertion and deletion curves of one clip.

    By attribution, by the same one shifted in time, by energy, and by random patches.
    """
    cells = explained.maps[i]
    fixed = {"fills": {"": explained.baseline}, "target": explained.targets[i]}
    orders = {"": cells, "_energy": explained.clips.energy[i], "_random": patches(cells.shape, [0, i])}
    values: dict[str, float] = {}
    for name, order in orders.items():
        found = areas(explained.network, explained.x[i], order=order, shifts=CONTROLS if not name else (), **fixed)
        values |= {f"{way}{name}": value for way, value in found.items()}
    return values


def scores(explained: Explained, i: int) -> dict[str, float]:
    """Compute all scores of one clip."""
    clips = explained.clips
    values = claims(explained.maps[i], clips.energy[i]) | faithfulness(explained, i)
    if clips.masks is not None:
        power = np.maximum(clips.S[i] - clips.silent, 0).mean(0)
        values |= known_answer(explained.maps[i], clips.masks[i], power)
    return values


@dataclass(frozen=True)
class Row:
    """One network and one clip.

    `baseline` or `references`, training clips by id, are what the method compares with; `map` is how the map was made
    that is scored. In the CSV one column per score follows; those with "_chance" are of maps shifted in time.
    """

    network: str
    run: str
    clip: str
    recording: str
    label: str
    subset: str
    target: str
    target_probability: float
    predicted: str
    method: str
    baseline: str
    references: str
    map: str
    steps: int
    change: float
    completeness_error: float
    map_movement: float
    scores: dict[str, float]

    @property
    def flat(self) -> dict[str, Any]:
        """The columns of the CSV by name."""
        values = asdict(self)
        return values | values.pop("scores")


@dataclass(frozen=True)
class SummaryRow:
    """Mean of one score over clips with its 95 % interval: Student's t, or Wilson's for shares of clips.

    Intervals are over recordings, or over clips if `n_recordings` is 0, as they are not known.
    """

    network: str
    subset: str
    score: str
    mean: float
    low: float
    high: float
    n: int
    n_recordings: int


@dataclass(frozen=True)
class CascadeRow:
    """Rank correlation of one clip's attributions with those of the network randomised from the head down.

    Of magnitudes, of signed values, and by chance: of magnitudes shifted in time.
    """

    network: str
    clip: str
    recording: str
    randomised_through: str
    magnitude: float
    signed: float
    chance: float


def subset_of(clip: str, run: Run) -> str:
    """Return the kind of clip: of generated ones that of their recipe, such as with or without a distractor."""
    return spec(clip).subset if is_generated(run.config.dataset) else "all"


def clip_rows(explained: Explained, options: ExplanationOptions, bar: Callable[[int], Any]) -> list[Row]:
    """Return one row per clip; `bar` is called with 1 after each."""
    labels, attribution, rows = explained.run.label_names, explained.attribution, []
    for i, clip in enumerate(explained.clips.ids):
        rows.append(
            Row(
                network=explained.name,
                run=explained.run.config.id,
                clip=clip,
                recording=explained.clips.groups[i],
                label=explained.clips.labels[i],
                subset=subset_of(clip, explained.run),
                target=labels[explained.targets[i]],
                target_probability=float(explained.probabilities[i]),
                predicted=labels[explained.predicted[i]],
                method=options.method,
                baseline=options.baseline if "baseline" in TABLE[options.method].takes else "",
                references=" ".join(explained.references_of(i)),
                map=explained.shown.words,
                steps=int(attribution.steps[i]),
                change=float(attribution.change[i]),
                completeness_error=float(attribution.error[i]),
                map_movement=float(attribution.movement[i]),
                scores=scores(explained, i),
            )
        )
        bar(1)
    return rows


def summary(rows: Sequence[Row]) -> list[SummaryRow]:
    """Return the mean of every score, for each network, over all clips and over each subset."""
    table = []
    for network, rows_of_network in group_by(rows, attrgetter("network")).items():
        subsets = {"all": rows_of_network} | dict(sorted(group_by(rows_of_network, attrgetter("subset")).items()))
        for subset, group in subsets.items():
            for score in rows[0].scores:
                groups = recordings(group)
                it = _interval(score, [row.scores[score] for row in group], groups)
                table.append(SummaryRow(network, subset, score, it.mean, it.low, it.high, it.n, len(set(groups))))
    return table


def recordings(rows: Sequence[Row] | Sequence[CascadeRow]) -> list[str]:
    """Return the recording of each clip; none if they are not known."""
    return [row.recording for row in rows] if rows[0].recording else []


def _interval(score: str, values: Sequence[float], groups: Sequence[str]) -> stats.Interval:
    if score in HITS:
        return stats.share_interval(values, groups=groups)
    return stats.mean_interval(values, bounds=BOUNDS.get(score.removesuffix("_chance"), (0.0, 1.0)), groups=groups)


def cascade_rows(explained: Explained, options: ExplanationOptions) -> list[CascadeRow]:
    """Return how similar the attributions of one network remain as its blocks are randomised."""
    trained = [(ranks(cells), ranks(np.abs(cells))) for cells in explained.maps]
    rows = []
    for through, cells_of_clips in randomised(explained, options):
        for i, ((signed, magnitude), cells) in enumerate(zip(trained, cells_of_clips, strict=True)):
            random_magnitude = ranks(np.abs(cells))
            rows.append(
                CascadeRow(
                    network=explained.name,
                    clip=explained.clips.ids[i],
                    recording=explained.clips.groups[i],
                    randomised_through=through,
                    magnitude=mean_product(random_magnitude, magnitude),
                    signed=mean_product(ranks(cells), signed),
                    chance=shifted(functools.partial(mean_product, magnitude), random_magnitude),
                )
            )
    return rows
