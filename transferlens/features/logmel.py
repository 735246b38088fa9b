"""Three-channel log-mel spectrograms of waveforms, the features of all networks.

The recipe is that of [1]_: three log-mel spectrograms of one clip, with windows of 25, 50 and 100 ms and hops of 10,
25 and 50 ms, are resized to one width and stacked like the three colours of an image. Short windows resolve time, long
windows resolve frequency.

* `log_mel`: the features of one waveform
* `FeatureSettings`: all that the features of a clip depend on, checked; `FeatureOptions`: the same for a command
* `mel_filters`, `resize`: steps on the way

References
----------
.. [1] K. Palanisamy, D. Singhania, A. Yao: Rethinking CNN models for audio classification. arXiv 2007.11154 (2020),
   section 3.1.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, above, between, shown
from transferlens.util.grouping import group_by
from transferlens.util.lazy import librosa, scipy

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

FLOOR = 1e-6
FRAMES_AT_ONCE = 64  # so few that their transforms stay in the processor's cache
LONGEST = 10.0  # window or hop [s]
WINDOWS = (0.025, 0.05, 0.1)
HOPS = (0.01, 0.025, 0.05)


@functools.lru_cache(maxsize=32)
def mel_filters(sr: int, n_fft: int, n_mels: int, semitones: int = 0) -> scipy.sparse.csr_array:
    """Return triangular HTK mel filters from 0 Hz to Nyquist with a peak of 1 [shape=(n_mels, n_fft // 2 + 1)].

    `semitones` divides the centre frequencies by ``2 ** (semitones / 12)``: the filters give the mel bands of the same
    sound shifted up in pitch. Bands that would lie above Nyquist are empty, as nothing was recorded there.
    """
    edges = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=sr / 2, htk=True)
    bins = 2 ** (semitones / 12) * librosa.fft_frequencies(sr=sr, n_fft=n_fft)
    rising, falling = bins - edges[:-2, None], edges[2:, None] - bins
    widths = np.diff(edges)[:, None]
    filters = np.maximum(np.minimum(rising / widths[:-1], falling / widths[1:]), 0)
    return scipy.sparse.csr_array(filters.astype(np.float32))


def resize(S: np.ndarray, width: int) -> np.ndarray:
    """Resize the time axis of S [shape=(n_mels, t)] to `width` frames, bilinearly with antialiasing."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(S, dtype=np.float32))
    return np.asarray(image.resize((width, S.shape[0]), Image.Resampling.BILINEAR))


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _check_waveform(y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.floating):
        raise ParameterError(
            f"y of shape {y.shape} and dtype {y.dtype} must be a mono waveform: one non-empty axis of floats"
        )
    if not max(y.max(), -y.min()) <= 1e6:
        raise ParameterError("y must hold finite samples up to 1e6 (full scale is 1): decode or clean the clip again")
    return y


def samples(seconds: float, sr: int) -> int:
    """Return a length in samples; halves are rounded to even, as in the paper's code."""
    return round(seconds * sr)


def _reflected(y: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the samples of a waveform from `start` to `stop`, which may lie before its first or after its last one."""
    if start >= 0 and stop <= len(y):
        return y[start:stop]
    last = len(y) - 1
    return y[last - np.abs(last - np.abs(np.arange(start, stop)))]


def log_mel(
    y: np.ndarray,
    *,
    sr: int,
    n_fft: int | None = None,
    windows: Sequence[float] = WINDOWS,
    hops: Sequence[float] = HOPS,
    n_mels: int = 128,
    width: int = 250,
) -> np.ndarray:
    """Compute log-mel spectrograms of one clip, one channel per window, resized to one width.

    Each channel is ``log(M + 1e-6)``, where M is the power of a centred STFT (reflect padding, periodic Hann window) in
    HTK mel bands of unit peak from 0 Hz to Nyquist. It is resized in time bilinearly with antialiasing.

    Parameters
    ----------
    y : ndarray [shape=(n,), float]
        Mono waveform. If it is shorter than `n_fft`, zeros are added at its end.
    sr : int > 0 [Hz]
        Sample rate of `y`.
    n_fft : int > 0 [samples], optional
        Length of the Fourier transform of all channels; by default that of the longest window.
    windows, hops : sequence of float > 0 [s]
        Window and hop length of each channel.
    n_mels : int > 0
        Number of mel bands.
    width : int > 0 [frames]
        Number of frames after resizing.

    Returns
    -------
    S : ndarray [shape=(len(windows), n_mels, width), float32]

    Raises
    ------
    ParameterError
        If an argument has a value that is not allowed.

    Notes
    -----
    For an odd `n_fft` (22 050 Hz) the code of Palanisamy, Singhania and Yao (2020) takes the frequencies of the
    transform 0.05 % too high; here they are exact.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    >>> log_mel(y, sr=22050).shape
    (3, 128, 250)
    """
    settings: Any = {"windows": windows, "hops": hops}  # sequences, or one of each
    return FeatureSettings(sr, n_fft, n_mels=n_mels, width=width, **settings).compute(y, sr)


@dataclass(frozen=True)
class FeatureSettings(Fields):
    """All that the features of a clip depend on; with the content of the clips, the key of a feature cache.

    Attributes
    ----------
    sr : int in 1000..768000 [Hz]
    n_fft : int > 0 [samples]
        None, when constructed, is replaced by the length of the longest window.
    windows, hops : tuple of float > 0 [s]
        Window and hop length of each channel.
    n_mels : int in 1..4096
    width : int in 1..100000 [frames]
    seconds : float > 0 [s] or None
        First pad every clip with zeros, or cut it, to this length. None: the whole clip is resized to the width.

    Raises
    ------
    ParameterError
        If a setting has a value that is not allowed.
    """

    sr: Annotated[int, between(1000, 768_000, " Hz")]
    n_fft: Annotated[int | None, between(1, 2**20, " samples")] = None
    windows: tuple[float, ...] = WINDOWS
    hops: tuple[float, ...] = HOPS
    n_mels: Annotated[int, between(1, 4096)] = 128
    width: Annotated[int, between(1, 100_000, " frames")] = 250
    seconds: Annotated[float | None, above(0)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_lengths()
        longest = samples(max(self.windows), self.sr)
        if self.n_fft is None:
            object.__setattr__(self, "n_fft", longest)
        elif self.n_fft < longest:
            raise ParameterError(f"n_fft={self.n_fft!r} must be at least {longest} samples, the longest window")

    def _check_lengths(self) -> None:
        if not self.windows or len(self.windows) != len(self.hops):
            raise ParameterError(
                f"windows={_words(self.windows)} and hops={_words(self.hops)} must have the same length, at least 1: "
                "give one hop per window"
            )
        for name in ("windows", "hops"):
            if not all(1 / self.sr <= value <= LONGEST for value in getattr(self, name)):
                raise ParameterError(
                    f"{name}={_words(getattr(self, name))} must each be at least one sample and at most {LONGEST:g} s"
                )

    def compute(self, y: np.ndarray, sr: int) -> np.ndarray:
        """Return the features of one waveform with its rate [Hz] [shape=(len(windows), n_mels, width), float32].

        Raise ParameterError if its rate is not `FeatureSettings.sr`: the features would be of other frequencies.
        """
        if sr != self.sr:
            is_rate = isinstance(sr, (int, float, np.number)) and 0 < sr < np.inf
            how = f": resample, y = librosa.resample(y, orig_sr={sr}, target_sr={self.sr})" if is_rate else ""
            raise ParameterError(f"sr={shown(sr)} must be {self.sr} [Hz], the rate of these features{how}")
        if self.seconds is not None:
            y = librosa.util.fix_length(y, size=max(1, samples(self.seconds, self.sr)))
        y, S = _check_waveform(y), np.empty(self.shape, np.float32)
        for (win_length, hop_length), channels in self.resolutions.items():
            S[channels] = resize(self.bands(y, win_length, hop_length)[0], self.width)
        return S

    @property
    def resolutions(self) -> dict[tuple[int, int], list[int]]:
        """The channels of each different pair of window and hop length [samples]."""
        lengths = [(samples(w, self.sr), samples(h, self.sr)) for w, h in zip(self.windows, self.hops, strict=True)]
        return group_by(range(len(lengths)), key=lengths.__getitem__)

    def bands(
        self, y: np.ndarray, win_length: int, hop_length: int, semitones: Collection[int] = (0,)
    ) -> dict[int, np.ndarray]:
        """Return the log-mel bands of a waveform, shifted up in pitch by each of `semitones` [shape=(n_mels, t)]."""
        n_fft = self.n_fft
        assert n_fft is not None  # set by __post_init__
        y = np.asarray(y, np.float32)
        y = np.pad(y, (0, n_fft - len(y))) if len(y) < n_fft else y
        n_frames = 1 + (len(y) - n_fft % 2) // hop_length
        filters = {shift: mel_filters(self.sr, n_fft, self.n_mels, shift) for shift in semitones}
        S = {shift: np.empty((self.n_mels, n_frames), np.float32) for shift in filters}
        for start in range(0, n_frames, FRAMES_AT_ONCE):
            stop = min(start + FRAMES_AT_ONCE, n_frames)
            power = self._power(y, range(start * hop_length, stop * hop_length, hop_length), win_length)
            for shift, M in S.items():
                M[:, start:stop] = np.log(filters[shift] @ power + np.float32(FLOOR))
        return S

    def _power(self, y: np.ndarray, starts: range, win_length: int) -> np.ndarray:
        """Return the power of frames of `n_fft` samples, centred at `starts` [shape=(n_fft // 2 + 1, t)]."""
        assert self.n_fft is not None
        # Only the samples under the window, reflected at both ends of the clip [shape=(t, win_length)].
        first = (self.n_fft - win_length) // 2 - self.n_fft // 2
        samples = _reflected(y, starts[0] + first, starts[-1] + first + win_length)
        frames = np.lib.stride_tricks.sliding_window_view(samples, win_length)[:: starts.step]
        windowed = frames * librosa.filters.get_window("hann", win_length, fftbins=True)
        # Zeros may follow the window: power does not depend on where in the frame it lies. In double precision: in
        # single, the rounding error of a loud tone hides quiet bands.
        D = scipy.fft.rfft(windowed, n=self.n_fft, axis=1)
        return np.ascontiguousarray((D.real**2 + D.imag**2).T, np.float32)

    @property
    def mel_frequencies(self) -> np.ndarray:
        """Centre frequencies of the mel bands [Hz] [shape=(n_mels,)]."""
        return librosa.mel_frequencies(self.n_mels + 2, fmin=0.0, fmax=self.sr / 2, htk=True)[1:-1]

    @property
    def n_empty(self) -> int:
        """Number of mel bands that no frequency of the transform is in."""
        assert self.n_fft is not None
        return int((mel_filters(self.sr, self.n_fft, self.n_mels).sum(axis=1) == 0).sum())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the features of one clip, (channels, n_mels, width)."""
        return len(self.windows), self.n_mels, self.width


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Fields):
    """How features are computed."""

    windows: tuple[float, ...] = WINDOWS
    """Window length of each channel [s]; a single one is used for all three channels."""
    hops: tuple[float, ...] = HOPS
    """Hop length of each channel [s]; a single one is used for all three channels."""
    fit: Literal["stretch", "pad"] = "stretch"
    """stretch: resize each whole clip to the width (the paper); pad: first pad or cut it to the data set's length."""

    def settings(self, dataset: DataSet) -> FeatureSettings:
        """Return the settings for one data set; raise ParameterError if an option has a value that is not allowed."""
        windows, hops = (lengths * 3 if len(lengths) == 1 else lengths for lengths in (self.windows, self.hops))
        if len(windows) != 3:
            raise ParameterError(
                f"windows={_words(self.windows)} must be 3 lengths, or 1 for all: the networks take 3 channels"
            )
        return FeatureSettings(
            sr=dataset.sr,
            n_fft=dataset.n_fft,
            windows=windows,
            hops=hops,
            width=dataset.width,
            seconds=dataset.seconds if self.fit == "pad" else None,
        )
