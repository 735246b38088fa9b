"""Questions about finished runs, which need their clips too: which runs, and which clips.

* `points`, `runs_of`: the runs that options name, by their files or as a study does
* `features`: the held-out clips of a run, and some that it was trained on; `clips_of`: the runs that share them
* `average`: the network whose weights are the mean of those of several runs; `with_soups`: ensembles with its outputs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare.ensembles import Members
from transferlens.data.catalogue import DataOptions
from transferlens.models import states
from transferlens.models.device import pick_device
from transferlens.store.heldout import classify, estimate_statistics, heldout_features
from transferlens.store.run import Run, check_alike, load_runs
from transferlens.training.schedule import ExecutionOptions
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import check_alone, names
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm

if TYPE_CHECKING:
    import torch

    from transferlens.models.network import Network

# Training clips on which BatchNorm statistics are estimated: thousands of positions per channel, even in Block 4.
ESTIMATED_ON = 128


def points(options: Any, *beside: str) -> dict[str, Arm]:
    """Return the runs to train, none if run files are named, which only the options `beside` them may accompany.

    The options are those of a question with `ckpt`, and with a plan and a sweep where the plan is that of all runs.
    """
    if not options.ckpt:
        return {"runs": Study.of(options).arm(options.plan.plan(options.sweep))}
    beside = (*beside, "figures", "figure_width", "titles", "cache", *names(DataOptions), *names(ExecutionOptions))
    check_alone(options, "ckpt", beside=beside)
    pick_device(options.execution.device)
    return {}


def runs_of(runs: Mapping[str, list[Run]], options: Any, *alike: str) -> list[Run]:
    """Return the runs that were trained or read for `points`, or the files that are named; see `load_runs`."""
    if not runs:
        return load_runs(options.ckpt, *alike)
    check_alike(runs["runs"], *alike)
    return runs["runs"]


def clips_of(run: Run) -> tuple[Any, ...]:
    """Return what runs have in common that `features` gives the same clips, held-out and training."""
    return run.config.split, run.provenance["features_key"], run.clip_ids


def features(run: Run, options: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return features of the held-out clips of a run, and of `n` clips that it was trained on; None if `n` is 0.

    These are spread over all of its training clips (`heldout.spread`).

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
        remedy = "give estimate=0 to leave them out" if hasattr(options, "estimate") else "leave soup out"
        raise ParameterError(f"{error}: {remedy}" if unknown else str(error)) from None
    except TransferLensError as error:
        others = "`classes`, `versus`, `ensemble`, `selection`, `tables` and `runs` need run files alone"
        raise type(error)(f"{error}; without clips and features, {others}") from None
    return S, training


def average(runs: Sequence[Run]) -> Network:
    """Return the network whose weights are the mean of those of several runs, in evaluation mode; a "soup".

    Raise ParameterError if they are of different networks.
    """
    check_alike(runs, "backbone", "truncate_after", "labels", "features", "normalisation")
    network = runs[0].model()
    network.load_state_dict(states.average([run.final_state() for run in runs]))
    return network


def with_soups(ensembles: Sequence[Members], options: Any, device: torch.device) -> list[Members]:
    """Return ensembles with the logits of the mean of their members' weights; of several backbones there is none.

    BatchNorm statistics are estimated anew on training clips of each fold. Errors are those of `features`.
    """
    soups: list[dict[str, np.ndarray]] = [{} for _ in ensembles]
    chosen = [(members, soup) for members, soup in zip(ensembles, soups, strict=True) if is_one(members)]
    todo = [(runs, fold, soup) for members, soup in chosen for fold, runs in members.runs.items()]
    same = group_by(todo, key=lambda each: clips_of(each[0][0]))
    with tqdm.tqdm(total=len(todo), desc="soups", unit="network", delay=2, leave=False, disable=None) as bar:
        for group in same.values():
            S, training = features(group[0][0][0], options, ESTIMATED_ON)
            for runs, fold, soup in group:
                network = average(runs).to(device)
                assert training is not None
                estimate_statistics(runs[0], network, training)
                soup[fold] = classify(runs[0], network, S)
                bar.update()
    return [
        replace(members, soup=np.concatenate([soup[fold] for fold in members.runs])) if soup else members
        for members, soup in zip(ensembles, soups, strict=True)
    ]


def is_one(members: Members) -> bool:
    """Return whether the members are networks of one architecture, whose weights can be averaged."""
    return len({run.config.backbone for runs in members.runs.values() for run in runs}) == 1
