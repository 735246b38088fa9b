"""Modules that are imported on first use, so that ``--help`` does not wait for torch.

``from transferlens.util.lazy import torch`` is one of them; for type checkers it is the module itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["load"]


class _Lazy:
    # Not in sys.modules, where importlib puts its own lazy modules: `inspect`, which torch and tyro use, looks at every
    # module there, and would import all of them, some in the middle of another's import.
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def load(name: str) -> Any:
    """Return a stand-in for the module `name`, which is imported when an attribute is first read.

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
    import pandas
    import pooch
    import psutil
    import requests
    import scipy
    import seaborn
    import soundfile
    import threadpoolctl
    import timm
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
    pandas = load("pandas")
    pooch = load("pooch")
    psutil = load("psutil")
    requests = load("requests")
    scipy = load("scipy")
    seaborn = load("seaborn")
    soundfile = load("soundfile")
    threadpoolctl = load("threadpoolctl")
    timm = load("timm")
    torch = load("torch")
    tqdm = load("tqdm")
