"""Augmented features: pitch-shifted and time-stretched variants of every clip, SpecAugment and mixup.

Variants are rendered before training, a few per clip, into a cache; training draws one variant per clip and epoch.
Rendering them during training would repeat the work in every epoch, on the processor that feeds the network.

- `Augmentation` renders the variants of a clip, by `from_spectrum` or `from_waveform`; `VariantCache` those of a data
  set.
- `mask` hides bands and stretches of time (SpecAugment [2]_); `mix` mixes the clips of a batch (mixup [3]_).

"spectrum" uses one Fourier transform for all variants of a clip. It shifts the pitch by s semitones by dividing the
centre frequencies of the mel filters by ``2 ** (s / 12)``, and stretches time by resampling frames. "waveform" shifts
and stretches the waveform by a phase vocoder (librosa), which is slower and smears transients. Semitones from -2 to 2
and rates from 0.9 to 1.2 are those of [1]_, section 4.1, and of its released code.

References
----------
.. [1] K. Palanisamy, D. Singhania, A. Yao: Rethinking CNN models for audio classification. arXiv:2007.11154, 2020.
.. [2] D. S. Park et al.: SpecAugment: a simple data augmentation method for automatic speech recognition.
   Interspeech 2019.
.. [3] H. Zhang et al.: mixup: beyond empirical risk minimization. ICLR 2018.
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

__all__ = ["KINDS", "Augmentation", "VariantCache", "from_spectrum", "from_waveform", "mask", "mix"]

# Increase it when the numbers that render gives change: old caches are then computed again.
RECIPE = 1
KINDS = ("none", "spectrum", "waveform", "released")
SEMITONES = (-2, -1, 0, 1, 2)
RATES = (0.9, 1.2)
WIDEST = 1 / 8  # largest width of a SpecAugment mask, as a fraction of its axis


@dataclass(frozen=True)
class Augmentation:
    """How the variants of a clip are rendered.

    Attributes
    ----------
    kind : "spectrum", "waveform" or "released"
        "released" is "waveform" with a shift of always 2 semitones up, as in the code released with the paper.
    variants : int > 0
        Variants per clip. The first is the unchanged clip, except for "released".
    """

    kind: Literal["spectrum", "waveform", "released"]
    variants: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS[1:]:
            raise ParameterError(f"kind={self.kind!r} must be one of {', '.join(KINDS[1:])}")
        if not 1 <= self.variants <= 1000:
            raise ParameterError(f"variants={self.variants!r} must be from 1 to 1000")

    def draws(self, clip: int) -> list[tuple[int, float]]:
        """Draw the semitones and the rate of each variant of a clip; a rate above 1 is faster.

        Parameters
        ----------
        clip : int >= 0
            Index of the clip, which seeds the draws.
        """
        rng = np.random.default_rng([RECIPE, clip])
        semitones, rates = rng.choice(SEMITONES, self.variants).tolist(), rng.uniform(*RATES, self.variants)
        if self.kind == "released":
            return [(max(SEMITONES), rate) for rate in rates]
        return [(0, 1.0), *zip(semitones[1:], rates[1:], strict=True)]

    def render(self, y: np.ndarray, settings: FeatureSettings, clip: int = 0) -> np.ndarray:
        """Compute the features of all variants of a clip.

        Parameters
        ----------
        y : ndarray [shape=(n_samples,), float]
            Mono waveform, at the sample rate of the features.
        settings : FeatureSettings
        clip : int >= 0
            Index of the clip: see `draws`.

        Returns
        -------
        S : ndarray [shape=(variants, channels, n_mels, width), float32]
        """
        how = from_spectrum if self.kind == "spectrum" else from_waveform
        return how(y, settings, self.draws(clip))


def from_waveform(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """Shift and stretch the waveform for each variant, and compute its features; parameters as for `from_spectrum`."""
    features = []
    for semitones, rate in draws:
        variant = librosa.effects.pitch_shift(y, sr=settings.sr, n_steps=semitones) if semitones else y
        variant = librosa.effects.time_stretch(variant, rate=rate) if rate != 1 else variant
        features.append(settings.compute(variant))
    return np.stack(features)


def from_spectrum(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """Compute the features of all variants from one Fourier transform per channel.

    Parameters
    ----------
    y : ndarray [shape=(n_samples,), float]
        Mono waveform, at the sample rate of the features.
    settings : FeatureSettings
    draws : list of (int, float)
        Semitones and rate of each variant.

    Returns
    -------
    S : ndarray [shape=(variants, channels, n_mels, width), float32]
        Those of `from_waveform`, without the smear of its phase vocoder.
    """
    n_fft = settings.n_fft
    assert n_fft is not None  # FeatureSettings sets it
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
            length = max(samples(settings.seconds, settings.sr), n_fft)  # shorter clips are padded
            n_frames = 1 + (length - n_fft % 2) // hop_length
        shifted: dict[int, np.ndarray] = {}
        for variant, (semitones, rate) in enumerate(draws):
            if semitones not in shifted:
                shifted[semitones] = np.log(
                    mel_filters(settings.sr, n_fft, settings.n_mels, semitones) @ power + np.float32(FLOOR)
                )
            S[variant, channel] = _fit(shifted[semitones], rate, n_frames, settings.width)
    if settings.seconds is not None:
        # Waveforms are padded before their transform, which changes the frames at the end of the clip.
        for variant in [i for i, draw in enumerate(draws) if draw == (0, 1.0)]:
            S[variant] = settings.compute(y)
    return S


def _fit(S: np.ndarray, rate: float, n_frames: int | None, width: int) -> np.ndarray:
    """Resize features to the width; if `n_frames` is given, apply the rate first, and pad or cut to `n_frames`."""
    if n_frames is None:
        return resize(S, width)
    played = resize(S, max(1, round(S.shape[1] / rate)))[:, :n_frames] if rate != 1 else S[:, :n_frames]
    silence = np.full((len(S), n_frames - played.shape[1]), np.log(FLOOR), np.float32)
    return resize(np.hstack([played, silence]), width)


class VariantCache(FeatureCache):
    """The variants of every clip of a data set in one HDF5 file, grouped by clip, in half precision.

    Half precision rounds log-mel features by at most 0.004, less than a twentieth of the change by one semitone.

    Parameters
    ----------
    clips : FeatureCache
        That of the unchanged clips; the variants are written to the same folder.
    augmentation : Augmentation
    """

    dtype = "f2"

    def __init__(self, clips: FeatureCache, augmentation: Augmentation) -> None:
        self.clips, self.augmentation, self.per_clip = clips, augmentation, augmentation.variants
        super().__init__(clips.dataset, clips.settings, clips.path.parent)

    @property
    def content(self) -> list:
        """What the key is computed from."""
        return [self.clips.key, RECIPE, self.augmentation.kind, self.augmentation.variants]

    def compute(self, number: int, clip: Clip) -> np.ndarray:
        """Compute the variants of one clip [shape=(variants, channels, n_mels, width)]; see `FeatureCache.compute`."""
        return self.augmentation.render(self.dataset.load(clip), self.settings, number)


def mask(x: torch.Tensor, n_masks: int) -> torch.Tensor:
    """Replace random mel bands and stretches of time by the mean of their clip, as SpecAugment does [2]_, section 2.

    Parameters
    ----------
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
    n_masks : int >= 0
        Masks per clip along each of the two axes; a mask covers at most an eighth of its axis.

    Returns
    -------
    masked : torch.Tensor [shape as x]
    """
    mean = x.mean((1, 2, 3), keepdim=True)
    for axis in (2, 3):
        size = x.shape[axis]
        for _ in range(n_masks):
            widths = torch.rand(len(x)) * WIDEST * size
            starts = torch.rand(len(x)) * (size - widths)
            position = torch.arange(size)
            hidden = (position >= starts[:, None]) & (position < (starts + widths)[:, None])
            shape = (len(x), 1, size, 1) if axis == 2 else (len(x), 1, 1, size)
            x = torch.where(hidden.reshape(shape).to(x.device), mean, x)
    return x


def mix(x: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix every clip of a batch with another one, as mixup does [3]_, section 2 and equation 1.

    Parameters
    ----------
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
    alpha : float > 0
        Both parameters of the beta distribution that the share is drawn from.

    Returns
    -------
    mixed : torch.Tensor [shape as x]
    others : torch.Tensor of int [shape=(n,)]
        Index of the clip that each one was mixed with.
    share : float in [0, 1]
        Weight of the clip itself, in the input and in the loss.
    """
    exact = torch.tensor(alpha, dtype=torch.float64)  # in single precision, a small alpha gives shares of one half
    share = torch.distributions.Beta(exact, exact).sample().item()
    others = torch.randperm(len(x))
    return share * x + (1 - share) * x[others.to(x.device)], others, share
