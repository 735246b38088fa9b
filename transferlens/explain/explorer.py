"""The report's explorer: the sound and spectrogram of clips, and what every network predicts, uses and ignores.

`entries` returns plain data for a page; images and sounds are data URIs.
"""

from __future__ import annotations

import base64
import io
import itertools
import logging
import zlib
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
from transferlens.store.arms import arm_names
from transferlens.store.heldout import heldout_audio
from transferlens.store.run import Run, check_alike
from transferlens.util.errors import TransferLensError
from transferlens.util.lazy import librosa, soundfile, tqdm

log = logging.getLogger(__name__)


# Largest sampling rate of sounds [Hz]: half that of a CD takes half the space.
SR = 22050
# Number of predictions that are listed.
TOP = 3


@dataclass(frozen=True)
class View:
    """One network's view of one clip: predictions with their probabilities, the most probable first.

    The attribution is an image; used and ignored are sounds, empty if the audio is not available.
    """

    network: str
    right: bool
    predictions: list[tuple[str, float]]
    attribution: str
    used: str
    ignored: str


@dataclass(frozen=True)
class Entry:
    """One clip: its spectrogram as an image, and its sound, empty if the audio is not available."""

    clip: str
    label: str
    seconds: float | None
    spectrogram: str
    sound: str
    views: list[View]

    @property
    def nbytes(self) -> int:
        """Size in a page [bytes]."""
        texts = [self.spectrogram, self.sound]
        return sum(map(len, [*texts, *(text for v in self.views for text in (v.attribution, v.used, v.ignored))]))


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def sound(y: np.ndarray, sr: int, gain: float = 1.0) -> str:
    """Return a waveform as a data URI (Ogg Vorbis), resampled to 22 050 Hz if its rate is higher."""
    if sr > SR:
        y, sr = librosa.resample(y, orig_sr=sr, target_sr=SR), SR
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", samplerate=sr, channels=1, format="OGG", subtype="VORBIS") as out:
        for start in range(0, len(y), sr):  # libsndfile's Vorbis encoder fails on long blocks
            out.write(np.clip(gain * y[start : start + sr], -1, 1))
    return f"data:audio/ogg;base64,{base64.b64encode(_numbered(file.getvalue())).decode()}"


def _numbered(ogg: bytes) -> bytes:
    """Return an Ogg stream with the serial number 0 instead of a random one, so that a page is the same again.

    A page of Ogg (RFC 3533, section 6) has its serial number at byte 14, its checksum at byte 22, and from byte 26 the
    number and the lengths of its segments.
    """
    pages, start = [], 0
    while start < len(ogg):
        end = start + 27 + ogg[start + 26]
        end += sum(ogg[start + 27 : end])
        page = ogg[start : start + 14] + bytes(4) + ogg[start + 18 : start + 22] + bytes(4) + ogg[start + 26 : end]
        # The polynomial of the checksum is that of zlib's, which takes the bits of bytes in the other order.
        checksum = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        pages.append(page[:22] + int(f"{checksum:032b}"[::-1], 2).to_bytes(4, "little") + page[26:])
        start = end
    return b"".join(pages)


def entries(
    runs: Sequence[Run], options: DataOptions, cache: Path, *, n_clips: int, how: ExplanationOptions, device: Any
) -> list[Entry]:
    """Explain at most `n_clips` clips that all these runs held out, chosen by what the first one gets right and wrong.

    There is no sound if the options name no data set and the clips are not the built-in ones.
    """
    check_alike(runs, "labels", "held-out clips (fold)", "features")
    indices = choose(runs[0], min(n_clips, len(runs[0].clip_ids)))
    clips = heldout_clips(runs[0], options, cache, how).pick(indices)
    try:
        audio: list[np.ndarray | None] = list(heldout_audio(runs[0], options, clips.ids))
    except TransferLensError as error:
        if options.clips or options.dataset:
            raise  # the user asked for these
        log.warning("the explorer has no sound: %s", error)
        audio = [None] * len(indices)
    networks = [
        explain(f"{run.config.backbone}, {arm}, seed {run.config.seed}", run, run.model(), clips, how, device)
        for arm, run in zip(arm_names(runs), runs, strict=True)
    ]
    bar = tqdm.tqdm(enumerate(audio), total=len(audio), unit="clip", desc="explorer", delay=2, disable=None)
    return [_entry(networks, i, indices[i], y) for i, y in bar]


def _entry(networks: Sequence[Explained], i: int, index: int, y: np.ndarray | None) -> Entry:
    """Return the entry of the explained clip `i`, which is the held-out clip `index` of the runs."""
    clips, settings = networks[0].clips, networks[0].run.config.features
    parts: list[tuple | None] = [None] * len(networks)
    gain = 1.0
    if y is not None:
        parts = [listen.split(y, listen.mask(explained.maps[i]), settings) for explained in networks]
        # One gain for all sounds of a clip, so that they can be compared.
        gain = listen.gain(y, *itertools.chain.from_iterable(filter(None, parts)))
    return Entry(
        clip=clips.ids[i],
        label=clips.labels[i],
        seconds=settings.seconds or (None if y is None else len(y) / settings.sr),
        spectrogram=spectrogram_image(clips.energy[i]),
        sound="" if y is None else sound(y, settings.sr, gain),
        views=[_view(explained, i, index, pair, gain) for explained, pair in zip(networks, parts, strict=True)],
    )


def _view(explained: Explained, i: int, index: int, parts: tuple | None, gain: float) -> View:
    run = explained.run
    probabilities = predictions.softmax(run.logits[index])
    order = np.argsort(-probabilities)
    used, ignored = ("", "") if parts is None else (sound(part, run.config.features.sr, gain) for part in parts)
    return View(
        network=explained.name,
        right=bool(order[0] == run.labels[index]),
        predictions=[(run.label_names[k], float(probabilities[k])) for k in order[:TOP]],
        attribution=attribution_image(explained.maps[i]),
        used=used,
        ignored=ignored,
    )
