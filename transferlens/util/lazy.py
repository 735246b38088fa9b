"""Modules that are imported on first use, so that ``--help`` does not wait for torch.

``from transferlens.util.lazy import torch`` is one of them; for type checkers it is the module itself.
"""

# ruff: noqa: F401
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Lazy:
    # Not in sys.modules, where importlib puts its own lazy modules: `inspect`, which torch and tyro use, looks at every
    # module there, and would import all of them, some in the middle of another's import.
    def __init__(self, name: str) -> None:
        self._name = name
        self._module: Any = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None:
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)


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
    import sklearn.metrics as metrics
    import sklearn.model_selection as model_selection
    import soundfile
    import threadpoolctl
    import timm
    import torch
    import tqdm
else:
    for _name in (
        "captum", "filelock", "h5py", "jinja2", "librosa", "matplotlib", "pandas", "pooch", "psutil", "requests",
        "scipy", "seaborn", "soundfile", "threadpoolctl", "timm", "torch", "tqdm",
    ):  # fmt: skip
        globals()[_name] = load(_name)
    images = load("matplotlib.image")
    model_selection = load("sklearn.model_selection")
    metrics = load("sklearn.metrics")
