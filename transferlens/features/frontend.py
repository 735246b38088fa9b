"""The log-mel features of `transferlens.features.logmel` as a torch module: on any device, and as part of a network.

* `FrontEnd`: waveforms to features; it can be exported together with a network
* `Normalise`, `Pooled`: what networks need before and after

Importing this module imports torch, which takes seconds: import it inside the function that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from transferlens.features.logmel import FLOOR, FeatureSettings, mel_filters, samples
from transferlens.util.errors import ParameterError

if TYPE_CHECKING:
    from transferlens.models.network import Network


class FrontEnd(nn.Module):
    """Compute what ``settings.compute`` does for one waveform, for a batch of them of one length.

    Power spectra are in double precision, as there: in single, rounding errors of a loud tone hide quiet bands.

    Parameters
    ----------
    settings : FeatureSettings
    products : bool
        Compute Fourier transforms as products with a matrix of sines, which is made where the module runs, instead of
        fast transforms: slower in torch, but several times as fast in onnxruntime.

    Examples
    --------
    >>> FrontEnd(FeatureSettings(8000, width=32))(torch.zeros(2, 8000)).shape
    torch.Size([2, 3, 128, 32])
    """

    filters: torch.Tensor
    waves: torch.Tensor

    def __init__(self, settings: FeatureSettings, *, products: bool = False) -> None:
        super().__init__()
        assert settings.n_fft is not None  # set by its __post_init__
        self.n_fft, self.width, self.products = settings.n_fft, settings.width, products
        self.length = None if settings.seconds is None else max(1, samples(settings.seconds, settings.sr))
        self.resolutions = settings.resolutions
        filters = mel_filters(settings.sr, settings.n_fft, settings.n_mels).toarray()
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        angles = 2 * np.pi * torch.arange(self.n_fft, dtype=torch.float64) / self.n_fft
        self.register_buffer("waves", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        for size, _ in self.resolutions:
            self.register_buffer(f"hann_{size}", torch.hann_window(size, dtype=torch.float64), persistent=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Return the features [shape=(batch, channels, n_mels, width)] of waveforms [shape=(batch, n_samples)]."""
        y = y.float().double()
        if self.length is not None:
            y = nn.functional.pad(y, (0, self.length))[:, : self.length]
        if y.shape[1] < self.n_fft:
            y = nn.functional.pad(y, (0, self.n_fft - y.shape[1]))
        bands: dict[int, torch.Tensor] = {}
        for (size, hop), channels in self.resolutions.items():
            power = self._products(y, size, hop) if self.products else self._stft(y, size, hop)
            log_mel = torch.log(self.filters @ power.float() + FLOOR)
            bands |= dict.fromkeys(channels, log_mel @ self._resizing(log_mel.shape[2]))
        return torch.stack([bands[channel] for channel in range(len(bands))], 1)

    def _stft(self, y: torch.Tensor, size: int, hop: int) -> torch.Tensor:
        """Return the power [shape=(batch, n_fft // 2 + 1, t)] in windows of `size` samples."""
        window = getattr(self, f"hann_{size}")
        D = torch.stft(y, self.n_fft, hop, size, window, center=True, pad_mode="reflect", return_complex=True)
        return torch.view_as_real(D).square().sum(-1)

    def _products(self, y: torch.Tensor, size: int, hop: int) -> torch.Tensor:
        """Return what `_stft` does."""
        half, place = self.n_fft // 2, torch.arange(size, device=y.device)
        frequency = torch.arange(half + 1, device=y.device)
        waves = self.waves[:, (place[:, None] * frequency) % self.n_fft] * getattr(self, f"hann_{size}")[:, None]
        y = nn.functional.pad(y[:, None], (half, half), mode="reflect")[:, 0]
        n_frames = 1 + (y.shape[1] - self.n_fft) // hop
        starts = (self.n_fft - size) // 2 + hop * torch.arange(n_frames, device=y.device)
        D = y[:, starts[:, None] + place] @ waves.permute(1, 0, 2).flatten(1)
        return D.unflatten(2, (2, half + 1)).square().sum(2).mT

    def _resizing(self, n_frames: int) -> torch.Tensor:
        """Return the matrix [shape=(n_frames, width)] of `logmel.resize`: triangles, wider where frames are dropped."""
        frame = torch.arange(n_frames, dtype=torch.float64, device=self.filters.device) + 0.5
        column = torch.arange(self.width, dtype=torch.float64, device=self.filters.device) + 0.5
        distance = (frame[:, None] * self.width - column * n_frames).abs()
        support: Any = torch.sym_max(n_frames, self.width)  # of a number that is open while a program is exported
        weights = (1 - distance / support).clamp(min=0)
        return (weights / weights.sum(0)).float()


class Normalise(nn.Module):
    """Subtract a value from each channel of the features, and divide it by another, as `store.run.normalised` does."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, normalisation: np.ndarray) -> None:
        super().__init__()
        for name, values in zip(("mean", "deviation"), normalisation, strict=True):
            tensor = torch.as_tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, S: torch.Tensor) -> torch.Tensor:
        """Return normalised features [shape=(batch, channels, n_mels, width)]."""
        return (S - self.mean) / self.deviation


class Pooled(nn.Module):
    """The embedding of inputs: the mean over the map that a block of a network returns, as the head gets it.

    Raise ParameterError if the network does not have the block.
    """

    def __init__(self, network: Network, block: int | None = None) -> None:
        super().__init__()
        last = len(network.blocks) - 1
        self.network, self.block = network, last if block is None else block
        if not 0 <= self.block <= last:
            raise ParameterError(f"block={block} must be 0 to {last}: the network is cut after Block {last}")

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        return self.network.channels[self.block]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings [shape=(batch, size)] of inputs [shape=(batch, channels, height, width)]."""
        return self.network.features(x, through=self.block).mean(dim=(2, 3))
