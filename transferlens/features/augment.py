"""Augmented features: pitch-shifted and time-stretched variants of every clip, SpecAugment and mixup.

Variants are rendered before training, a few per clip, into a cache; training draws one variant per clip and epoch.
Rendering them during training would repeat the work in every epoch, on the processor that feeds the network.

- `Augmentation` renders the variants of a clip, by `from_spectrum` or `from_waveform`; `VariantCache` those of a data
  set.
- `mask` hides mel bands and intervals of time (SpecAugment [2]_); `mix` mixes the clips of a batch (mixup [3]_).

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
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FLOOR, FeatureSettings, resize, samples
from transferlens.util.fields import Fields, between
from transferlens.util.lazy import librosa, torch

if TYPE_CHECKING:
    from transferlens.data.clips import Clip

# Increase it when the numbers that render gives change: old caches are then computed again.
RECIPE = 1
SEMITONES = (-2, -1, 0, 1, 2)
RATES = (0.9, 1.2)
WIDEST = 1 / 8  # largest width of a SpecAugment mask, as a fraction of its axis


Kind = Literal["spectrum", "waveform", "released"]


@dataclass(frozen=True)
class Augmentation(Fields):
    """How the variants of a clip are rendered.

    Attributes
    ----------
    kind : "spectrum", "waveform" or "released"
        "released" is "waveform" with a shift of always 2 semitones up, as in the code released with the paper.
    variants : int > 0
        Variants per clip. The first is the unchanged clip, except for "released".
    """

    kind: Kind
    variants: Annotated[int, between(1, 1000)] = 8

    @property
    def augmented(self) -> range:
        """Indices of the variants that differ from the clip."""
        return range(self.kind != "released", self.variants)

    def draws(self, clip: int) -> list[tuple[int, float]]:
        """Draw semitones and rate (above 1: faster) of each variant of a clip; the clip's index is the seed."""
        rng = np.random.default_rng([RECIPE, clip])
        semitones, rates = rng.choice(SEMITONES, self.variants).tolist(), rng.uniform(*RATES, self.variants)
        if self.kind == "released":
            return [(max(SEMITONES), rate) for rate in rates]
        return [(0, 1.0), *zip(semitones[1:], rates[1:], strict=True)]

    def render(self, y: np.ndarray, settings: FeatureSettings, clip: int = 0) -> np.ndarray:
        """Return the features of all variants of a waveform [shape=(variants, channels, n_mels, width), float32]."""
        how = from_spectrum if self.kind == "spectrum" else from_waveform
        return how(y, settings, self.draws(clip))


def from_waveform(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """Shift and stretch the waveform by the semitones and rate of each draw, and compute the features.

    Both this and `from_spectrum` return ndarrays [shape=(n_draws, channels, n_mels, width), float32].
    """
    features = []
    for semitones, rate in draws:
        variant = librosa.effects.pitch_shift(y, sr=settings.sr, n_steps=semitones) if semitones else y
        variant = librosa.effects.time_stretch(variant, rate=rate) if rate != 1 else variant
        features.append(settings.compute(variant, settings.sr))
    return np.stack(features)


def from_spectrum(y: np.ndarray, settings: FeatureSettings, draws: list[tuple[int, float]]) -> np.ndarray:
    """Compute what `from_waveform` does from one Fourier transform per channel, without a phase vocoder's smear."""
    S = np.empty((len(draws), *settings.shape), np.float32)
    for (win_length, hop_length), channels in settings.resolutions.items():
        shifted = settings.bands(y, win_length, hop_length, {semitones for semitones, _ in draws})
        for variant, (semitones, rate) in enumerate(draws):
            S[variant, channels] = _fit(shifted[semitones], rate, hop_length, settings)
    if settings.seconds is not None:
        # Waveforms are padded before their transform, which changes the frames at the end of the clip.
        for variant in [i for i, draw in enumerate(draws) if draw == (0, 1.0)]:
            S[variant] = settings.compute(y, settings.sr)
    return S


def _fit(S: np.ndarray, rate: float, hop_length: int, settings: FeatureSettings) -> np.ndarray:
    """Resize the time axis of features [shape=(n_mels, t)] to ``settings.width`` frames.

    If ``settings.seconds`` is given, the features are first resized to ``t / rate`` frames, and then cut or padded with
    silence to that length. Otherwise `rate` has no effect, as every clip is resized to one width.
    """
    if settings.seconds is not None:
        assert settings.n_fft is not None  # see FeatureSettings
        length = max(samples(settings.seconds, settings.sr), settings.n_fft)  # shorter clips are padded
        n_frames = 1 + (length - settings.n_fft % 2) // hop_length
        played = resize(S, max(1, round(S.shape[1] / rate)))[:, :n_frames] if rate != 1 else S[:, :n_frames]
        silence = np.full((len(S), n_frames - played.shape[1]), np.log(FLOOR), np.float32)
        S = np.hstack([played, silence])
    return resize(S, settings.width)


class VariantCache(FeatureCache):
    """The variants of every clip of a data set in one HDF5 file, grouped by clip, in half precision.

    Half precision rounds log-mel features by at most 0.004, less than a twentieth of the change by one semitone.

    They are written to the folder of `clips`, the cache of the unchanged clips.
    """

    dtype = "f2"

    def __init__(self, clips: FeatureCache, augmentation: Augmentation) -> None:
        self.clips, self.augmentation, self.per_clip = clips, augmentation, augmentation.variants
        super().__init__(clips.dataset, clips.settings, clips.path.parent)

    @property
    def content(self) -> list:
        """What the key is computed from."""
        return [self.clips.key, RECIPE, self.augmentation.kind, self.augmentation.variants]

    @property
    def digests(self) -> list[str]:
        """Sha256 of the content of every clip."""
        return self.clips.digests

    def compute(self, number: int, clip: Clip) -> np.ndarray:
        """Compute the variants of one clip [shape=(variants, channels, n_mels, width)]."""
        return self.augmentation.render(self.dataset.load(clip), self.settings, number)


def mask(x: torch.Tensor, n_masks: int) -> torch.Tensor:
    """Replace random mel bands and intervals of time by the mean of their clip (SpecAugment, Park et al. 2019).

    Each clip of `x` [shape=(n, channels, n_mels, width)] gets `n_masks` along each axis, each mask at most an eighth of
    the axis long.
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
    """Apply mixup: replace each clip of a batch by its weighted mean with a random clip of the batch.

    Return the mixtures [shape as x], the index of each clip's partner [shape=(n,)], and the weight w in [0, 1] of the
    clips themselves; their partners have the weight 1 - w. One w is drawn per batch, from the distribution
    Beta(`alpha`, `alpha`) (Zhang et al. 2018, section 2, equation 1).
    """
    exact = torch.tensor(alpha, dtype=torch.float64)  # in single precision, a small alpha gives shares of one half
    share = torch.distributions.Beta(exact, exact).sample().item()
    others = torch.randperm(len(x))
    return share * x + (1 - share) * x[others.to(x.device)], others, share
