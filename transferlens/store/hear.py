"""A finished run as a model of the HEAR benchmark: embeddings of sounds, and of moments in them.

The module has HEAR's common API [1]_, so that its tools take it by name, with a run file as the weights file:

    python -m heareval.embeddings.runner transferlens.store.hear --model runs/mine/RUN.h5 --tasks-dir tasks

HEAR has sounds of 16 000, 22 050, 32 000, 44 100 and 48 000 Hz: train with such a rate (``--sr``).

* `load_model`: the model, a torch module with `sample_rate`, `scene_embedding_size` and `timestamp_embedding_size`
* `get_scene_embeddings`, `get_timestamp_embeddings`: what the benchmark calls

Importing this module imports torch, which takes seconds.

References
----------
.. [1] J. Turian et al.: HEAR: Holistic Evaluation of Audio Representations. NeurIPS 2021 Competitions, appendix B.
   https://hearbenchmark.com/hear-api.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from transferlens.features.frontend import FrontEnd, Normalise, Pooled
from transferlens.models.forward import PASS_SIZE
from transferlens.store.heldout import autocast
from transferlens.store.run import Run, load_run
from transferlens.util.errors import ParameterError
from transferlens.util.fields import above, checked

WINDOW = 1.0  # of sound around a moment [s]
HOP = 0.05  # from one moment to the next [s]: HEAR advises this at most


class Model(nn.Module):
    """The embedding of waveforms [shape=(n_sounds, n_samples)] by a block of a run, in the run's precision.

    Attributes
    ----------
    sample_rate : int [Hz]
    scene_embedding_size, timestamp_embedding_size : int
    window, hop : float [s]
        Of the sound around a moment, and between moments.
    """

    def __init__(self, run: Run, *, block: int | None = None, window: float = WINDOW, hop: float = HOP) -> None:
        super().__init__()
        self.front = nn.Sequential(FrontEnd(run.config.features), Normalise(run.normalisation))
        self.pooled = Pooled(run.model(), block)
        self.sample_rate = run.config.features.sr
        self.scene_embedding_size = self.timestamp_embedding_size = self.pooled.size
        self.window, self.hop, self._run = window, hop, run
        for name, value in (("window", window), ("hop", hop)):
            if value * self.sample_rate < 1:
                shortest = f"{1 / self.sample_rate:.2g} s at the rate of {self.sample_rate} Hz"
                raise ParameterError(f"{name}={value:g} must be at least one sample, {shortest}")
        self.eval()

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Return embeddings [shape=(n_sounds, scene_embedding_size), float32]."""
        x = self.front(audio).contiguous(memory_format=torch.channels_last)
        with autocast(self._run, audio.device)():
            return self.pooled(x).float()


@checked
def load_model(
    model_file_path: Path | str = "",
    *,
    block: int | None = None,
    window: Annotated[float, above(0)] = WINDOW,
    hop: Annotated[float, above(0)] = HOP,
) -> Model:
    """Return the model of a run file.

    Parameters
    ----------
    model_file_path : path
        A run file.
    block : int in 0..4, optional
        The block whose pooled output is the embedding. Default: the last one of the network.
    window, hop : float > 0 [s]
        A moment is embedded with half a window of sound on each side; silence is added at both ends.

    Raises
    ------
    CheckpointError
        If the run cannot be opened.
    ParameterError
        If no file is named, or the network does not have the block.
    """
    if not str(model_file_path):
        raise ParameterError("model_file_path must be a run file (.h5): there is not a default model")
    return Model(load_run(model_file_path), block=block, window=window, hop=hop)


def get_scene_embeddings(audio: torch.Tensor, model: Model) -> torch.Tensor:
    """Return an embedding for each sound.

    Parameters
    ----------
    audio : torch.Tensor [shape=(n_sounds, n_samples)]
        Waveforms at the rate of the model, from -1 to 1, on its device.
    model : Model

    Returns
    -------
    torch.Tensor [shape=(n_sounds, scene_embedding_size), float32]
    """
    _check(audio)
    with torch.no_grad():
        return torch.cat([model(part) for part in audio.split(PASS_SIZE)])


def get_timestamp_embeddings(audio: torch.Tensor, model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings of moments in each sound: of a window around each, `Model.hop` apart from 0 to the end.

    Parameters
    ----------
    audio : torch.Tensor [shape=(n_sounds, n_samples)]
        As for `get_scene_embeddings`.
    model : Model

    Returns
    -------
    embeddings : torch.Tensor [shape=(n_sounds, n_timestamps, timestamp_embedding_size), float32]
    timestamps : torch.Tensor [shape=(n_sounds, n_timestamps), float32, ms]
        The centre of each window.
    """
    _check(audio)
    (n_sounds, n_samples), sr = audio.shape, model.sample_rate
    size = round(model.window * sr)
    n = 1 + int(n_samples / sr / model.hop + 1e-9)
    times = model.hop * torch.arange(n, dtype=torch.float64, device=audio.device)  # not rounded before they are placed
    starts = (times * sr).round().long()  # in the padded sounds, where a window begins at what was its centre
    padded = nn.functional.pad(audio, (size // 2, size))
    places = torch.arange(size, device=audio.device)
    embeddings = []
    with torch.no_grad():
        for part in starts.split(max(1, PASS_SIZE // n_sounds)):
            windows = padded[:, part[:, None] + places]
            embeddings.append(model(windows.flatten(0, 1)).unflatten(0, (n_sounds, len(part))))
    return torch.cat(embeddings, 1), (1000 * times).float().expand(n_sounds, n)


def _check(audio: torch.Tensor) -> None:
    if not isinstance(audio, torch.Tensor) or audio.ndim != 2 or not audio.numel() or not audio.is_floating_point():
        kind = tuple(audio.shape) if isinstance(audio, torch.Tensor) else type(audio).__name__
        raise ParameterError(f"audio={kind} must be a tensor of floats of shape (n_sounds, n_samples), not empty")
