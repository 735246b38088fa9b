"""Where networks are computed."""

from __future__ import annotations

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return the device `name`, or for "auto" the first available of cuda, mps and cpu.

    Raise ParameterError if torch does not know the name, or the device is not available on this machine.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        available = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        available += ["mps"] if torch.backends.mps.is_available() else []
        raise ParameterError(f"device={name!r} is not available here: use {', '.join(available)}") from error
    return device
