"""Clips to hear and to see without a network's attribution: their sounds and spectrograms."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from transferlens.data.catalogue import DataOptions
from transferlens.explain import listen
from transferlens.explain.explorer import Entry, sound
from transferlens.plots.spectrogram import spectrogram_image
from transferlens.store.heldout import heldout_audio, heldout_features
from transferlens.store.run import Run
from transferlens.util.errors import TransferLensError
from transferlens.util.grouping import group_by

log = logging.getLogger(__name__)


def heard(chosen: Sequence[tuple[Run, str]], options: DataOptions, cache: Path) -> list[Entry]:
    """Return held-out clips, each with a run that held it out, in the order given.

    Clips whose features are not available are left out, and clips whose audio is not available are silent; but if the
    options name a data set, errors are raised.
    """
    entries: dict[str, Entry] = {}
    places = group_by(chosen, lambda pair: (pair[0].provenance["features_key"], pair[0].config.fold))
    for pairs in places.values():
        run, clips = pairs[0][0], [clip for _, clip in pairs]
        try:
            S = heldout_features(run, options, cache)[[run.clip_ids.index(clip) for clip in clips]].mean(1)
        except TransferLensError as error:
            if options.clips or options.dataset:
                raise
            log.warning("some mistakes cannot be shown: %s", error)
            continue
        entries |= {entry.clip: entry for entry in _entries(run, clips, S, _audio(run, clips, options))}
    return [entries[clip] for _, clip in chosen if clip in entries]


def _audio(run: Run, clips: Sequence[str], options: DataOptions) -> list[np.ndarray | None]:
    try:
        return [*heldout_audio(run, options, clips)]
    except TransferLensError as error:
        if options.clips or options.dataset:
            raise
        log.warning("mistakes cannot be heard: %s", error)
        return [None] * len(clips)


def _entries(run: Run, clips: Sequence[str], S: np.ndarray, audio: Sequence[np.ndarray | None]) -> Iterator[Entry]:
    """Yield clips with spectrograms of features [shape=(n, n_mels, width)], and their sounds."""
    settings = run.config.features
    labels = dict(zip(run.clip_ids, run.labels.tolist(), strict=True))
    for clip, energy, y in zip(clips, S, audio, strict=True):
        yield Entry(
            clip=clip,
            label=run.label_names[labels[clip]],
            seconds=settings.seconds or (None if y is None else len(y) / settings.sr),
            spectrogram=spectrogram_image(energy),
            sound="" if y is None else sound(y, settings.sr, listen.gain(y)),
            views=[],
        )
