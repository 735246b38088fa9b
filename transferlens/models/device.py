"""Where networks are computed."""

from __future__ import annotations

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch

__all__ = ["pick_device"]


def pick_device(name: str = "auto") -> torch.device:
    """The device named, or for "auto" the best there is: cuda, mps, cpu.

    Raises
    ------
    ParameterError
        Where the name is none of torch's, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ParameterError(f"device={name!r} is not to be had here; use auto, cpu, cuda, cuda:N or mps") from error
    return device
