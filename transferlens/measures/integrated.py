"""Integrated and Expected Gradients: gradients along straight paths to the input, as many as their map needs.

A path leads from a baseline or a reference to the input. It is divided into parts; in each the integral is computed
with two gradients. Two things are known of every part: how far its integral is from the change of the logit, which is
its completeness error, and how much the attributions changed when it came from halving a longer part. The parts where
these are largest are halved, until the completeness error and the movement of the map are within their tolerances.
The movement is the L1 distance of the map from that of the parts before they were last halved, relative to its norm.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from transferlens.measures.maps import distance
from transferlens.measures.task import Attributed, Task
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import captum, torch

# Parts of all paths together at the start, and gradients per part.
PARTS, NODES = 4, 2
# No attribution is of fewer gradients.
FEWEST = 32
# Gradients per reference at least: a path of one part, and both of its halves.
PER_REFERENCE = 3 * NODES


class _Part(NamedTuple):
    """From `start` to `end` of a path, 0 being its reference and 1 the input."""

    path: int
    start: float
    end: float


def integrated_gradients(task: Task) -> Attributed:
    """Compute Integrated Gradients: one path, from the baseline."""
    return _integrated(task, task.baseline)


def expected_gradients(task: Task) -> Attributed:
    """Compute Expected Gradients: the mean of Integrated Gradients over the references."""
    least = PER_REFERENCE * len(task.references)
    if task.max_steps < least:
        raise ParameterError(
            f"max_steps={task.max_steps} must be at least {least} for {len(task.references)} references, "
            f"{PER_REFERENCE} gradients each: increase max_steps, or use fewer references"
        )
    return _integrated(task, task.references)


def _integrated(task: Task, starts: torch.Tensor) -> Attributed:
    paths = _Paths(task, starts)
    edges = np.linspace(0, 1, 1 + max(1, PARTS // len(starts))).tolist()
    paths.add([_Part(path, *ends) for path in range(len(starts)) for ends in pairwise(edges)])
    while not paths.is_converged and (room := (task.max_steps - paths.steps) // (2 * NODES)) > 0:
        paths.halve(paths.worst()[:room])
    return Attributed(paths.values[None], paths.steps, paths.movement)


class _Paths:
    """Paths to one input, in parts that have been integrated."""

    def __init__(self, task: Task, starts: torch.Tensor) -> None:
        self.task, self.starts, self.steps = task, starts, 0
        self._logits: dict[tuple[int, float], float] = {}
        self._integrals: dict[_Part, torch.Tensor] = {}
        self._errors: dict[_Part, float] = {}
        # By how much halving changed the attributions, half of it for each half [shape=(height, width)].
        self._moves: dict[_Part, np.ndarray] = {}
        self._weights: dict[_Part, float] = {}

    def at(self, points: Sequence[tuple[int, float]]) -> torch.Tensor:
        """Return points of paths."""
        paths, positions = zip(*points, strict=True)
        alpha = torch.tensor(positions, dtype=self.starts.dtype, device=self.starts.device)[:, None, None, None]
        starts = self.starts[list(paths)]
        return starts + alpha * (self.task.x - starts)

    def add(self, parts: Sequence[_Part]) -> None:
        """Integrate parts."""
        points = dict.fromkeys(point for part in parts for point in ((part.path, part.start), (part.path, part.end)))
        new = [point for point in points if point not in self._logits]
        self._logits |= zip(new, self.task.logits(self.at(new)).tolist(), strict=True) if new else ()
        for part, integral in zip(parts, self._integrate(parts), strict=True):
            change = self._logits[part.path, part.end] - self._logits[part.path, part.start]
            self._integrals[part], self._errors[part] = integral, change - integral.sum().item()
        self.steps += NODES * len(parts)

    def _integrate(self, parts: Sequence[_Part]) -> Iterator[torch.Tensor]:
        """Yield for each part the integral of the gradients, times the difference of its end and start."""
        gradients = captum.attr.IntegratedGradients(self.task.model)
        size = max(1, self.task.size // NODES)
        for i in range(0, len(parts), size):
            batch = parts[i : i + size]
            starts = self.at([(part.path, part.start) for part in batch])
            ends = self.at([(part.path, part.end) for part in batch])
            yield from gradients.attribute(ends, starts, target=self.task.target, n_steps=NODES)

    def halve(self, parts: Sequence[_Part]) -> None:
        """Replace parts by their halves."""
        halves = []
        for path, start, end in parts:
            middle = (start + end) / 2
            halves.append((_Part(path, start, middle), _Part(path, middle, end)))
        self.add([half for pair in halves for half in pair])
        for part, pair in zip(parts, halves, strict=True):
            move = (sum(self._integrals[half] for half in pair) - self._integrals.pop(part)).sum(0).cpu().numpy() / 2
            weight = float(np.abs(self.task.shown.smoothed(move)).sum())
            for values in (self._errors, self._moves, self._weights):
                values.pop(part, None)
            self._moves |= dict.fromkeys(pair, move)
            self._weights |= dict.fromkeys(pair, weight)

    @property
    def values(self) -> torch.Tensor:
        """The attributions [shape=(channels, height, width)]."""
        return functools.reduce(torch.add, self._integrals.values()) / len(self.starts)

    @property
    def movement(self) -> float:
        """How much the last halving of every part moved the map; NaN as long as a part has not been halved."""
        if len(self._moves) < len(self._integrals):
            return float("nan")
        cells = self.values.sum(0).cpu().numpy()
        before = cells - functools.reduce(np.add, self._moves.values()) / len(self.starts)
        return distance(self.task.shown.of_cells(cells), self.task.shown.of_cells(before))

    @property
    def _change(self) -> float:
        """Change of the logit, summed over paths."""
        return sum(self._logits[path, 1.0] - self._logits[path, 0.0] for path in range(len(self.starts)))

    @property
    def _is_complete(self) -> bool:
        return abs(sum(self._errors.values())) <= self.task.tolerance * abs(self._change)

    @property
    def is_converged(self) -> bool:
        """Whether there are enough gradients, and the sum and the map are within their tolerances."""
        return self.steps >= FEWEST and self._is_complete and self.movement <= self.task.map_tolerance

    def worst(self) -> list[_Part]:
        """Return the parts to halve: all that never were; else those that matter most to the sum and to the map."""
        if whole := [part for part in self._integrals if part not in self._moves]:
            return whole
        most = max(1, self.task.size // NODES // 2)
        if self._is_complete:
            return _worst(self._weights, sum(self._weights.values()) / 2, at_least=most)
        return _worst(self._errors, self.task.tolerance * abs(self._change) / 2, at_least=most)


def _worst(errors: Mapping[_Part, float], rest: float, *, at_least: int) -> list[_Part]:
    """Return the parts with the largest errors, as many as needed to leave at most `rest` in the others."""
    order = sorted(errors, key=lambda part: -abs(errors[part]))
    left = np.cumsum([abs(errors[part]) for part in order][::-1])[::-1]
    return order[: max(at_least, int((left > rest).sum()))]
