"""Questions about finished runs, which need their clips too: which runs, and which clips.

* `points`, `runs_of`: the runs that options name, by their files or as a study does
* `features`: the held-out clips of a run, and some that it was trained on
* `average`: the network whose weights are the mean of those of several runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.data.catalogue import DataOptions
from transferlens.models import states
from transferlens.models.device import pick_device
from transferlens.store.heldout import heldout_features
from transferlens.store.run import Run, check_alike, load_runs
from transferlens.training.schedule import ExecutionOptions
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import check_alone, names

if TYPE_CHECKING:
    from transferlens.models.network import Network

# Training clips on which BatchNorm statistics are estimated: thousands of positions per channel, even in Block 4.
ESTIMATED_ON = 128


def points(options: Any, *beside: str) -> dict[str, Arm]:
    """Return the runs to train, none if run files are named, which only the options `beside` them may accompany.

    The options are those of a question with `ckpt`, and with a plan and a sweep where the plan is that of all runs.
    """
    if not options.ckpt:
        return {"runs": Study.of(options).arm(options.plan.plan(options.sweep))}
    beside = (*beside, "figures", "cache", *names(DataOptions), *names(ExecutionOptions))
    check_alone(options, "ckpt", beside=beside)
    pick_device(options.execution.device)
    return {}


def runs_of(runs: Mapping[str, list[Run]], options: Any, *alike: str) -> list[Run]:
    """Return the runs that were trained or read for `points`, or the files that are named; see `load_runs`."""
    if not runs:
        return load_runs(options.ckpt, *alike)
    check_alike(runs["runs"], *alike)
    return runs["runs"]


def features(run: Run, options: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return features of the held-out clips of a run, and of `n` clips that it was trained on; None if `n` is 0.

    These are spread evenly over all of its training clips, in an order that is random but always the same, so that
    each mini-batch has clips of many classes.

    Raise TransferLensError, with what can be asked without them, if clips and features are not there.
    """
    data, cache = options.data, options.store.cache
    try:
        S = heldout_features(run, data, cache)
        if not n:
            return S, None
        training = heldout_features(run, data, cache, training=True, most=n)
    except ParameterError as error:
        unknown = "training clips are not known" in str(error)
        raise ParameterError(f"{error}: give estimate=0 to leave them out" if unknown else str(error)) from None
    except TransferLensError as error:
        others = "`ensemble`, `selection`, `tables` and `runs` need run files alone"
        raise type(error)(f"{error}; without clips and features, {others}") from None
    return S, training[np.random.default_rng(0).permutation(len(training))]


def average(runs: Sequence[Run]) -> Network:
    """Return the network whose weights are the mean of those of several runs, in evaluation mode; a "soup".

    Raise ParameterError if they are of different networks.
    """
    check_alike(runs, "backbone", "truncate_after", "labels")
    network = runs[0].model()
    network.load_state_dict(states.average([run.final_state() for run in runs]))
    return network
