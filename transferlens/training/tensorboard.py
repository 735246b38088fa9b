"""The history of runs as TensorBoard reads it: ``tensorboard --logdir runs/tensorboard``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from transferlens.store.config import RunConfig
from transferlens.util.errors import ParameterError

FOLDER = "tensorboard"
# The name of each curve, which groups them, by that in the history of a run.
CURVES = {
    "train_loss": "loss/training",
    "heldout_loss": "loss/held-out",
    "heldout_accuracy": "accuracy/held-out",
    "inner_accuracy": "accuracy/inner fold",
    "heldout_mAP": "mAP/held-out",
    "inner_mAP": "mAP/inner fold",
    "lr": "learning rate",
    "seconds": "seconds per epoch",
}

History = Mapping[str, Sequence[float]]


def check() -> None:
    """Raise ParameterError if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ParameterError("log='tensorboard' needs the package tensorboard: pip install 'transferlens[tensorboard]'")


def folder_of(config: RunConfig, store: Path) -> Path:
    """Return the folder of a run's curves."""
    return store / FOLDER / config.dataset / config.id


@contextlib.contextmanager
def writer(config: RunConfig, store: Path) -> Iterator[Callable[[History], None]]:
    """Yield a function that writes the epochs of a history that are new since its last call.

    What an earlier process wrote of the run is removed: its history holds all epochs, so that each is there once.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow

    folder, done = folder_of(config, store), 0
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()

    def write(history: History) -> None:
        """Write the epochs of a history that are new since the last call."""
        nonlocal done
        for epoch in range(done, len(history["seconds"])):
            for name, values in history.items():
                curves.add_scalar(CURVES[name], values[epoch], epoch + 1)
        done = len(history["seconds"])
        curves.flush()

    with SummaryWriter(str(folder)) as curves:
        yield write
