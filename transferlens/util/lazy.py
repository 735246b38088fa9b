"""Modules that are imported when they are first used, so that ``--help`` need not wait for torch.

``from transferlens.lazy import torch`` names one. Type checkers take it for the module itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["load"]


class _Lazy:
    # Kept out of sys.modules, unlike importlib's own lazy modules: `inspect`, which torch and tyro use, looks at every
    # module there, which would wake all of them, some of them halfway through another's import.
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def load(name: str) -> Any:
    """A stand-in for the module `name`, which is imported at the first look at one of its attributes.

    Examples
    --------
    >>> numpy = load("numpy")
    >>> numpy.arange(3).sum().item()
    3
    """
    return _Lazy(name)


if TYPE_CHECKING:
    import captum
    import filelock
    import h5py
    import jinja2
    import librosa
    import matplotlib
    import matplotlib.image as images
    import pooch
    import psutil
    import requests
    import scipy
    import seaborn
    import soundfile
    import threadpoolctl
    import torch
    import tqdm
else:
    captum = load("captum")
    filelock = load("filelock")
    h5py = load("h5py")
    images = load("matplotlib.image")
    jinja2 = load("jinja2")
    librosa = load("librosa")
    matplotlib = load("matplotlib")
    pooch = load("pooch")
    psutil = load("psutil")
    requests = load("requests")
    scipy = load("scipy")
    seaborn = load("seaborn")
    soundfile = load("soundfile")
    threadpoolctl = load("threadpoolctl")
    torch = load("torch")
    tqdm = load("tqdm")
