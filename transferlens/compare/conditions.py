"""Runs under conditions: their held-out clips classified again, clean and corrupted.

* `corrupted` classifies the held-out clips of runs under each kind and strength of corruption
* `features` computes the features of clips under one of them
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from transferlens.compare import finished
from transferlens.compare.ensembles import Members
from transferlens.data.catalogue import DataOptions
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.store.heldout import classify, estimate_statistics, heldout_dataset, load, spread
from transferlens.store.run import Run
from transferlens.util.fields import Rule
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm

if TYPE_CHECKING:
    import torch

    from transferlens.data.clips import DataSet
    from transferlens.models.network import Network

CLEAN = "clean"
Condition = tuple[str, float]  # kind and strength
KNOWN = Rule(f"one or more of {', '.join(CORRUPTIONS)}", lambda kinds: kinds and set(kinds) <= set(CORRUPTIONS))


def corrupted(
    runs: Sequence[Run],
    options: DataOptions,
    kinds: Sequence[str],
    device: torch.device,
    *,
    soups: Sequence[Members] = (),
) -> tuple[dict[Condition, list[Run]], dict[Condition, dict[tuple[str, str], np.ndarray]]]:
    """Classify corrupted held-out clips.

    Parameters
    ----------
    runs : sequence of Run
        Runs of one fold have the same held-out clips and features.
    options : DataOptions
        The clips of the runs.
    kinds : sequence of str
        Names of `CORRUPTIONS`, each with all of its strengths.
    device : torch.device
    soups : sequence of Members
        Ensembles whose members' weights are averaged, as one more network each.

    Returns
    -------
    runs : dict of (kind, strength) to list of Run
        The runs with logits of the corrupted clips, clean clips first.
    soups : dict of (kind, strength) to dict of (ensemble, fold) to ndarray [shape=(n_clips, n_classes)]
        The logits of the average of the weights of each of `soups`, by fold.
    """
    conditions = [(CLEAN, 0.0), *((kind, strength) for kind in kinds for strength in CORRUPTIONS[kind].strengths)]
    by_condition: dict[Condition, list[Run]] = {condition: [] for condition in conditions}
    averaged: dict[Condition, dict[tuple[str, str], np.ndarray]] = {condition: {} for condition in conditions}
    n_networks = len(runs) + sum(len(members.runs) for members in soups)
    with tqdm.tqdm(total=len(conditions) * n_networks, unit="run", delay=2, leave=False, disable=None) as bar:
        for fold, runs_of_fold in group_by(runs, key=lambda run: run.config.fold).items():
            dataset = heldout_dataset(runs_of_fold[0], options)
            runs_of_fold = [run.within(dataset) for run in runs_of_fold]
            networks = [run.model().to(device) for run in runs_of_fold]
            averages = {soup.name: _soup(soup.runs[fold], dataset, device) for soup in soups if fold in soup.runs}
            clips = load(dataset, runs_of_fold[0].clip_ids)
            for condition in conditions:
                S = features(runs_of_fold[0], clips, *condition)
                for run, network in zip(runs_of_fold, networks, strict=True):
                    by_condition[condition].append(replace(run, logits=classify(run, network, S)))
                    bar.update()
                for name, network in averages.items():
                    averaged[condition][name, fold] = classify(runs_of_fold[0], network, S)
                    bar.update()
    return by_condition, averaged


def _soup(runs: Sequence[Run], dataset: DataSet, device: torch.device) -> Network:
    """Return the average of the weights of runs of one fold, with statistics estimated anew on training clips."""
    config = runs[0].config
    rows = dataset.split(*config.split)[0]
    rows = rows[spread(len(rows), finished.ESTIMATED_ON)]
    S = np.stack([config.features.compute(dataset.load(dataset.clips[i]), dataset.sr) for i in rows])
    network = finished.average(runs).to(device)
    estimate_statistics(runs[0], network, S)
    return network


def features(run: Run, clips: Sequence[np.ndarray], kind: str, strength: float) -> np.ndarray:
    """Compute log-mel features of corrupted clips; each clip has its own noise, the same in every run.

    Parameters
    ----------
    run : Run
    clips : sequence of ndarray [shape=(n_samples,)]
        The waveforms of its held-out clips, in its order.
    kind : str
        A name of `CORRUPTIONS`, or `CLEAN`.
    strength : float
        In the unit of the corruption.

    Returns
    -------
    ndarray [shape=(n_clips, channels, n_mels, width), float32]
    """
    settings = run.config.features
    if kind != CLEAN:
        seeds = [zlib.crc32(clip.encode()) for clip in run.clip_ids]
        corruption = CORRUPTIONS[kind]
        clips = [corruption(y, strength, sr=settings.sr, seed=seed) for y, seed in zip(clips, seeds, strict=True)]
    return np.stack([settings.compute(y, settings.sr) for y in clips])
