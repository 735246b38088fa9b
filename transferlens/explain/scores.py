"""Scores of explanations as tables: a row a clip, means with intervals, and the cascading randomisation.

What `transferlens.saliency` writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from transferlens.data.clips import BUILT_IN
from transferlens.data.synthetic import spec
from transferlens.explain.explanations import Explained, ExplanationOptions, randomised
from transferlens.measures import stats
from transferlens.measures.faithfulness import area, claims, curve, known_answer, mean_product, ranks, shifted
from transferlens.store.run import Run

__all__ = ["CascadeRow", "Row", "SummaryRow", "cascade_rows", "clip_rows", "scores", "summary"]

# Seed of the random order of cells.
SEED = 0
# Scores that are 1 or 0 a clip.
HITS = ("points_into_event", "points_into_event_energy")
# What the others can be at least and at most.
BOUNDS = {"energy_correlation": (-1.0, 1.0), "edge_correlation": (-1.0, 1.0)}


def faithfulness(found: Explained, i: int) -> dict[str, float]:
    """Areas under the insertion and deletion curves of one clip, cells in the order of attribution, energy, chance."""
    rng = np.random.default_rng([SEED, i])
    cells = found.cells[i]
    orders = {"": cells, "_energy": found.clips.energy[i], "_random": rng.permutation(cells.size).reshape(cells.shape)}
    return {
        f"{way}{name}": area(
            curve(
                found.network,
                found.x[i],
                baseline=found.baseline,
                target=found.targets[i],
                order=order,
                insert=way == "insertion",
            )
        )
        for way in ("insertion", "deletion")
        for name, order in orders.items()
    }


def scores(found: Explained, i: int) -> dict[str, float]:
    """All scores of one clip."""
    values = claims(found.cells[i], found.clips.energy[i]) | faithfulness(found, i)
    if found.clips.masks is not None:
        power = np.maximum(found.clips.S[i] - found.clips.silent, 0)
        values |= known_answer(found.attribution.values[i], found.clips.masks[i], power)
    return values


@dataclass(frozen=True)
class Row:
    """One network and one clip.

    In the CSV a column a score follows, those with "_chance" of attributions shifted in time.
    """

    network: str
    run: str
    clip: str
    label: str
    subset: str
    target: str
    target_probability: float
    predicted: str
    method: str
    baseline: str
    steps: int
    change: float
    completeness_error: float
    scores: dict[str, float]

    @property
    def flat(self) -> dict[str, Any]:
        """By name of the column."""
        values = asdict(self)
        return values | values.pop("scores")


@dataclass(frozen=True)
class SummaryRow:
    """Mean of one score over clips, with a 95 % interval: Student's t over clips, Wilson's for shares of clips."""

    network: str
    subset: str
    score: str
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class CascadeRow:
    """Rank correlation of one clip's attributions with those of the network randomised from the top.

    Of their magnitudes, of signed values, and by chance: of magnitudes shifted in time.
    """

    network: str
    clip: str
    randomised_through: str
    magnitude: float
    signed: float
    chance: float


def subset_of(clip: str, run: Run) -> str:
    """Which kind of clip: of the built-in set, with or without the louder distractor."""
    if run.config.dataset != BUILT_IN:
        return "all"
    return "with distractor" if spec(clip).has_distractor else "without distractor"


def clip_rows(found: Explained, options: ExplanationOptions, bar: Callable[[int], Any]) -> list[Row]:
    """A row a clip."""
    labels = found.run.label_names
    rows = []
    for i, clip in enumerate(found.clips.ids):
        rows.append(
            Row(
                network=found.name,
                run=found.run.config.id,
                clip=clip,
                label=found.clips.labels[i],
                subset=subset_of(clip, found.run),
                target=labels[found.targets[i]],
                target_probability=float(found.probabilities[i]),
                predicted=labels[found.predicted[i]],
                method=options.method,
                baseline=options.baseline,
                steps=int(found.attribution.steps[i]),
                change=float(found.attribution.change[i]),
                completeness_error=float(found.attribution.error[i]),
                scores=scores(found, i),
            )
        )
        bar(1)
    return rows


def summary(rows: Sequence[Row]) -> list[SummaryRow]:
    """Means over clips of every score, of all clips and of each subset."""
    found = []
    for network in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == network]
        subsets = {"all": mine} | {kind: [row for row in mine if row.subset == kind] for kind in _subsets(mine)}
        for kind, group in subsets.items():
            for name in rows[0].scores:
                interval = _interval(name, [row.scores[name] for row in group])
                found.append(SummaryRow(network, kind, name, interval.mean, interval.low, interval.high, interval.n))
    return found


def _interval(name: str, values: Sequence[float]) -> stats.Interval:
    if name in HITS:
        return stats.wilson_interval(int(sum(values)), len(values))
    return stats.mean_interval(values, bounds=BOUNDS.get(name.removesuffix("_chance"), (0.0, 1.0)))


def _subsets(rows: Iterable[Row]) -> list[str]:
    return sorted({row.subset for row in rows} - {"all"})


def cascade_rows(found: Explained, options: ExplanationOptions) -> list[CascadeRow]:
    """How alike the attributions of one network are to its own, as it is randomised."""
    own = [(ranks(cells), ranks(np.abs(cells))) for cells in found.cells]
    rows = []
    for through, others in randomised(found, options):
        for clip, (signed, magnitude), other in zip(found.clips.ids, own, others, strict=True):
            other_magnitude = ranks(np.abs(other))
            rows.append(
                CascadeRow(
                    network=found.name,
                    clip=clip,
                    randomised_through=through,
                    magnitude=mean_product(other_magnitude, magnitude),
                    signed=mean_product(ranks(other), signed),
                    chance=shifted(functools.partial(mean_product, magnitude), other_magnitude),
                )
            )
    return rows
