"""Augmented features: variants of every clip, pitch shifted and stretched in time, rendered once before any training.

Augmentation that runs while a network trains is done anew in every epoch, by the processor that should be feeding the
network. Here each clip is rendered a few times into a cache; training draws one rendering a clip and epoch.

"spectrum" shares one Fourier transform among all renderings of a clip. A pitch shift by s semitones of a power spectrum
is a mel filter bank whose centre frequencies are divided by ``2 ** (s / 12)``; a time stretch is a resampling of
frames. "waveform" shifts and stretches the waveform by a phase vocoder (librosa), which is slower and smears.

References
----------
Palanisamy, Singhania, Yao (2020), section 4.1, and the code released with it: semitones -2 to 2, rates 0.9 to 1.2.
D. S. Park et al.: SpecAugment: a simple data augmentation method for automatic speech recognition. Interspeech 2019.
H. Zhang et al.: mixup: beyond empirical risk minimization. ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FLOOR, FeatureSettings, mel_filters, power_spectrum, resize, samples
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import librosa, torch

if TYPE_CHECKING:
    from transferlens.data.clips import Clip

__all__ = ["KINDS", "Augmentation", "VariantCache", "mask", "mix"]

# Raise it when the numbers that render gives change: old caches are then made anew.
RECIPE = 1
KINDS = ("none", "spectrum", "waveform", "released")
SEMITONES = (-2, -1, 0, 1, 2)
RATES = (0.9, 1.2)
# SpecAugment: a mask is at most this share of its axis.
WIDEST = 1 / 8


@dataclass(frozen=True)
class Augmentation:
    """How a clip is rendered.

    Attributes
    ----------
    kind : "spectrum", "waveform" or "released"
        "released" is as "waveform", but always 2 semitones up, as the code was that the paper was released with.
    variants : int > 0
        Renderings of a clip. The first is the clip as it is, but for "released".
    """

    kind: Literal["spectrum", "waveform", "released"]
    variants: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS[1:]:
            raise ParameterError(f"kind={self.kind!r} must be one of {', '.join(KINDS[1:])}")
        if not 1 <= self.variants <= 1000:
            raise ParameterError(f"variants={self.variants!r} must be from 1 to 1000")

    def draws(self, clip: int) -> list[tuple[int, float]]:
        """Semitones and rate of each variant of a clip; a rate above 1 is faster.

        Parameters
        ----------
        clip : int >= 0
            Its number, which decides them.
        """
        rng = np.random.default_rng([RECIPE, clip])
        found = list(
            zip(rng.choice(SEMITONES, self.variants).tolist(), rng.uniform(*RATES, self.variants), strict=True)
        )
        if self.kind == "released":
            return [(max(SEMITONES), rate) for _, rate in found]
        return [(0, 1.0), *found[1:]]

    def render(self, y: np.ndarray, settings: FeatureSettings, clip: int = 0) -> np.ndarray:
        """All variants' features.

        Parameters
        ----------
        y : ndarray [shape=(n_samples,), float]
            At the rate of the features.
        settings : FeatureSettings
        clip : int >= 0
            As for `draws`.

        Returns
        -------
        S : ndarray [shape=(variants, channels, n_mels, width), float32]
        """
        how = from_spectrum if self.kind == "spectrum" else from_waveform
        return how(y, settings, self.draws(clip))


def from_waveform(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """Shift, stretch, then compute features, each time from the start."""
    found = []
    for semitones, rate in draws:
        made = librosa.effects.pitch_shift(y, sr=settings.sr, n_steps=semitones) if semitones else y
        found.append(settings.compute(librosa.effects.time_stretch(made, rate=rate) if rate != 1 else made))
    return np.stack(found)


def from_spectrum(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """The same up to the phase vocoder's smear, from one Fourier transform a channel."""
    n_fft = settings.n_fft
    assert n_fft is not None  # the settings have seen to that
    y = np.pad(np.asarray(y, np.float32), (0, max(0, n_fft - len(y))))
    S = np.empty((len(draws), *settings.shape), np.float32)
    done: dict[tuple[float, float], int] = {}
    for channel, (window, hop) in enumerate(zip(settings.windows, settings.hops, strict=True)):
        if (window, hop) in done:
            S[:, channel] = S[:, done[window, hop]]
            continue
        done[window, hop] = channel
        hop_length = samples(hop, settings.sr)
        win_length = samples(window, settings.sr)
        power = power_spectrum(y, n_fft=n_fft, win_length=win_length, hop_length=hop_length)
        n_frames = None
        if settings.seconds is not None:
            length = max(samples(settings.seconds, settings.sr), n_fft)  # as shorter ones are padded to
            n_frames = 1 + (length - n_fft % 2) // hop_length
        shifted: dict[int, np.ndarray] = {}
        for variant, (semitones, rate) in enumerate(draws):
            if semitones not in shifted:
                shifted[semitones] = np.log(
                    mel_filters(settings.sr, n_fft, settings.n_mels, semitones) @ power + np.float32(FLOOR)
                )
            S[variant, channel] = _fit(shifted[semitones], rate, n_frames, settings.width)
    if settings.seconds is not None:
        # Waveforms are padded before their transform, which frames at the clip's end show.
        for variant in [i for i, draw in enumerate(draws) if draw == (0, 1.0)]:
            S[variant] = settings.compute(y)
    return S


def _fit(S: np.ndarray, rate: float, n_frames: int | None, width: int) -> np.ndarray:
    """Stretched to the width whatever the rate; or played at the rate, silence added or a cut to `n_frames` first."""
    if n_frames is None:
        return resize(S, width)
    played = resize(S, max(1, round(S.shape[1] / rate)))[:, :n_frames] if rate != 1 else S[:, :n_frames]
    silence = np.full((len(S), n_frames - played.shape[1]), np.log(FLOOR), np.float32)
    return resize(np.hstack([played, silence]), width)


class VariantCache(FeatureCache):
    """Variants of every clip of a data set in one HDF5 file, those of one clip after another, in half precision.

    Half precision rounds log-mel features by 0.004 at most, less than a twentieth of a semitone's change.

    Parameters
    ----------
    clips : FeatureCache
        Of the clips as they are, beside which it lies.
    augmentation : Augmentation
    """

    dtype = "f2"

    def __init__(self, clips: FeatureCache, augmentation: Augmentation) -> None:
        self.clips, self.augmentation, self.per_clip = clips, augmentation, augmentation.variants
        super().__init__(clips.dataset, clips.settings, clips.path.parent)

    @property
    def content(self) -> list:
        """What the key is made of."""
        return [self.clips.key, RECIPE, self.augmentation.kind, self.augmentation.variants]

    def compute(self, number: int, clip: Clip) -> np.ndarray:
        """The rows of one clip [shape=(variants, channels, n_mels, width)]."""
        return self.augmentation.render(self.dataset.load(clip), self.settings, number)


def mask(x: torch.Tensor, n_masks: int) -> torch.Tensor:
    """Hide bands and stretches of time: SpecAugment's masks, of each clip its own, filled with the clip's mean.

    Parameters
    ----------
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
    n_masks : int >= 0
        Masks along each of the two axes, each from nothing to an eighth of it.

    References
    ----------
    Park et al. 2019, section 2.
    """
    mean = x.mean((1, 2, 3), keepdim=True)
    for axis in (2, 3):
        size = x.shape[axis]
        for _ in range(n_masks):
            widths = torch.rand(len(x)) * WIDEST * size
            starts = torch.rand(len(x)) * (size - widths)
            places = torch.arange(size)
            hidden = (places >= starts[:, None]) & (places < (starts + widths)[:, None])
            shape = (len(x), 1, size, 1) if axis == 2 else (len(x), 1, 1, size)
            x = torch.where(hidden.reshape(shape).to(x.device), mean, x)
    return x


def mix(x: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix every clip of a batch with another one: mixup.

    Parameters
    ----------
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
    alpha : float > 0
        Both parameters of the beta distribution that the share is drawn from.

    Returns
    -------
    mixed : torch.Tensor [shape as x]
    others : torch.Tensor of int [shape=(n,)]
        With which clip of the batch each one was mixed.
    share : float in [0, 1]
        Of the clip itself, in the input and in the loss.

    References
    ----------
    Zhang et al. 2018, equation 1 and section 2.
    """
    exact = torch.tensor(alpha, dtype=torch.float64)  # in single precision small ones give one half
    share = torch.distributions.Beta(exact, exact).sample().item()
    others = torch.randperm(len(x))
    return share * x + (1 - share) * x[others.to(x.device)], others, share
