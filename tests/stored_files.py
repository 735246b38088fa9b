"""A small run file and a small feature cache, for the tests to write, and all that is read of them."""

from __future__ import annotations

import re

import h5py
import numpy as np

from transferlens.features import cache
from transferlens.features.logmel import FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.store import runfile
from transferlens.store.config import RunConfig, Training
from transferlens.store.listing import summarise
from transferlens.store.run import load_run

KEY = "ab" * 32
CLIPS = ["a.wav", "b.wav", "c.wav", "d.wav"]


def write_run(path):
    rng = np.random.default_rng(0)
    config = RunConfig(
        dataset="made-up", data_key=KEY, features=FeatureSettings(22_050), fold="1", backbone="tf_efficientnet_lite0",
        plan=TransferPlan(), weights_sha256="cd" * 32, seed=0, training=Training(epochs=3),
    )  # fmt: skip
    state = runfile.RunState(
        config=config,
        provenance={
            "features_key": KEY,
            "precision": "fp32",
            "weights_option": "auto",
            "weights_source": "none",
            "n_train": 8,
        },
        label_names=["high", "low"],
        clip_ids=CLIPS,
        labels=np.array([0, 1, 0, 1]),
        normalisation=np.ones((2, 3)),
        history={
            name: [0.25, 0.5, 0.75] for name in ("train_loss", "heldout_loss", "heldout_accuracy", "lr", "seconds")
        },
        logits_last=np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32),
        logits_best=np.array([[3, 0], [0, 3], [0, 3], [0, 3]], np.float32),
        weights={"head.weight": rng.normal(size=(2, 5)).astype(np.float32), "head.steps": np.array(3)},
        fresh={"head.weight": rng.normal(size=(2, 5)).astype(np.float32)},
        optimizer={"head.weight/exp_avg": rng.normal(size=(2, 5)).astype(np.float32)},
        groups=["r1", "r1", "r2", "r2"],
        recordings=["r3", "r4", "r5"],
    )
    runfile.write_state(path, state)


def write_cache(path):
    with h5py.File(path, "w") as file:
        file["features"] = np.arange(4 * 3 * 2 * 5, dtype=np.float32).reshape(4, 3, 2, 5)
        file["clip_ids"] = CLIPS
        file.attrs.update(key=KEY, recipe=1, settings="{}")
    cache.SEAL.write(path)


def shown(value):
    """Values as text, without the path and the byte order."""
    return re.sub(r"(dtype|path|file|nbytes)='?[^ ,)]*|[^ ']*\.h5", "", str(value))


RUN_READERS = (
    lambda path: shown(vars(load_run(path))),
    lambda path: shown(summarise(path)),
    lambda path: shown(runfile.read_state(path)),
)
CACHE_READERS = (
    lambda path: shown(cache.read_cached(path, KEY, CLIPS[::-1])),
    lambda path: shown(cache.cached_clips(path)),
)
# By kind of file: how one is written, the readers, and its seal.
KINDS = {"run": (write_run, RUN_READERS, runfile.SEAL), "cache": (write_cache, CACHE_READERS, cache.SEAL)}
