"""The report's explorer: for each clip its sound, spectrogram, and what every network sees, predicts and ignores.

Plain data, ready for a page: images and sounds are data URIs.
"""

from __future__ import annotations

import base64
import io
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.data.catalogue import DataOptions
from transferlens.explain import listen
from transferlens.explain.explanations import Explained, ExplanationOptions, choose, explain, heldout_clips
from transferlens.measures import predictions
from transferlens.plots.spectrogram import attribution_image, spectrogram_image
from transferlens.store.heldout import heldout_audio
from transferlens.store.run import Run, arm_names, check_alike
from transferlens.util.errors import TransferLensError
from transferlens.util.lazy import librosa, soundfile, tqdm

log = logging.getLogger(__name__)

__all__ = ["Entry", "View", "entries", "sound"]

# Rate that sounds are written at [Hz]: half that of a CD takes half the room.
SR = 22050
# Predictions that are listed.
TOP = 3


@dataclass(frozen=True)
class View:
    """One network's view of one clip.

    Attributes
    ----------
    network : str
    right : bool
    predictions : list of (label, probability)
        The likeliest first.
    attribution : str
        Image.
    used, ignored : str
        Sounds; empty where the audio is gone.
    """

    network: str
    right: bool
    predictions: list[tuple[str, float]]
    attribution: str
    used: str
    ignored: str


@dataclass(frozen=True)
class Entry:
    """One clip.

    Attributes
    ----------
    clip, label : str
    seconds : float [s], or None
    spectrogram : str
        Image.
    sound : str
        Empty where the audio is gone.
    views : list of View
    """

    clip: str
    label: str
    seconds: float | None
    spectrogram: str
    sound: str
    views: list[View]

    @property
    def nbytes(self) -> int:
        """What it takes in a page [bytes]."""
        mine = [self.spectrogram, self.sound]
        return sum(map(len, [*mine, *(text for v in self.views for text in (v.attribution, v.used, v.ignored))]))


def sound(y: np.ndarray, sr: int, gain: float = 1.0) -> str:
    """A waveform as a data URI (Ogg Vorbis) at 22 050 Hz or its own lower rate."""
    if sr > SR:
        y, sr = librosa.resample(y, orig_sr=sr, target_sr=SR), SR
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", samplerate=sr, channels=1, format="OGG", subtype="VORBIS") as out:
        for start in range(0, len(y), sr):  # libsndfile's Vorbis encoder fails on long blocks
            out.write(np.clip(gain * y[start : start + sr], -1, 1))
    return f"data:audio/ogg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _names(runs: Sequence[Run]) -> list[str]:
    names = arm_names(runs)
    return [f"{run.config.backbone}, {name}, seed {run.config.seed}" for name, run in zip(names, runs, strict=True)]


def entries(
    runs: Sequence[Run], options: DataOptions, cache: Path, *, n_clips: int, how: ExplanationOptions, device: Any
) -> list[Entry]:
    """Explain clips that all these runs held out.

    Parameters
    ----------
    runs : sequence of Run
        With the same held-out clips; the first one's right and wrong clips are chosen from.
    options : DataOptions
        Where the audio is; where it names nothing and the built-in clips are others, the page is silent.
    cache : Path
        Folder of the feature caches.
    n_clips : int > 0
        At most.
    how : ExplanationOptions
    device : torch.device
    """
    check_alike(runs, "labels", "held-out clips (fold)", "features")
    places = choose(runs[0], min(n_clips, len(runs[0].clip_ids)))
    clips = heldout_clips(runs[0], options, cache).pick(places)
    try:
        audio: list[np.ndarray | None] = list(heldout_audio(runs[0], options, clips.ids))
    except TransferLensError as error:
        if options.clips or options.dataset:
            raise  # these were asked for
        log.warning("the explorer has no sound: %s", error)
        audio = [None] * len(places)
    found = [explain(name, run, run.model(), clips, how, device) for name, run in zip(_names(runs), runs, strict=True)]
    bar = tqdm.tqdm(enumerate(audio), total=len(audio), unit="clip", desc="explorer", delay=2, disable=None)
    return [_entry(i, y, places[i], found) for i, y in bar]


def _entry(i: int, y: np.ndarray | None, place: int, found: Sequence[Explained]) -> Entry:
    first = found[0]
    settings = first.run.config.features
    known = None if y is None else len(y) / settings.sr
    parts = [None if y is None else listen.split(y, listen.mask(each.cells[i]), settings) for each in found]
    # One gain for all of a clip's sounds, so that they can be compared.
    gain = 1.0 if y is None else listen.gain(y, *itertools.chain.from_iterable(filter(None, parts)))
    return Entry(
        clip=first.clips.ids[i],
        label=first.clips.labels[i],
        seconds=settings.seconds or known,
        spectrogram=spectrogram_image(first.clips.energy[i]),
        sound="" if y is None else sound(y, settings.sr, gain),
        views=[_view(each, i, place, pair, gain) for each, pair in zip(found, parts, strict=True)],
    )


def _view(found: Explained, i: int, place: int, pair: tuple | None, gain: float) -> View:
    run = found.run
    probabilities = predictions.softmax(run.logits[place])
    order = np.argsort(-probabilities)
    used, ignored = ("", "") if pair is None else (sound(part, run.config.features.sr, gain) for part in pair)
    return View(
        network=found.name,
        right=bool(order[0] == run.labels[place]),
        predictions=[(run.label_names[k], float(probabilities[k])) for k in order[:TOP]],
        attribution=attribution_image(found.cells[i]),
        used=used,
        ignored=ignored,
    )
