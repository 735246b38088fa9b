"""Two networks that belong together: one before and after training, two seeds, or two ways of training.

* `NetworkPair`: both, and their weights
* `comparisons`: the pairs of runs that are compared layer by layer
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from transferlens.store.arms import arm_names
from transferlens.store.run import Run, check_alike

if TYPE_CHECKING:
    import torch

Kind = Literal["training", "seeds", "runs"]


@dataclass(frozen=True, eq=False)
class NetworkPair:
    """Two networks: a run before and after "training", runs that differ only by their "seeds", or two other "runs"."""

    kind: Kind
    arm: str
    first: Run
    second: Run

    @property
    def seeds(self) -> str:
        """The seeds of both, in words."""
        return " and ".join(dict.fromkeys(str(run.config.seed) for run in (self.first, self.second)))

    @property
    def label(self) -> str:
        """The pair in words, for tables."""
        return f"{self.arm}, {self.kind}, seed {self.seeds}"

    def states(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return the state dicts of both networks."""
        first = self.first.initial_state() if self.kind == "training" else self.first.final_state()
        return first, self.second.final_state()


def comparisons(runs: Sequence[Run]) -> list[NetworkPair]:
    """Return each run before and after training, pairs of seeds, and the pair of two runs that differ otherwise."""
    named = list(zip(arm_names(runs), runs, strict=True))
    compared = [NetworkPair("training", arm, run, run) for arm, run in named]
    for (arm, a), (other, b) in itertools.combinations(named, 2):
        if replace(a.config, seed=b.config.seed) == b.config:
            compared.append(NetworkPair("seeds", arm, a, b))
        elif len(runs) == 2:
            check_alike(runs, "normalisation")
            compared.append(NetworkPair("runs", f"{arm} and {other}", a, b))
    return compared
