"""Ten thousand runs listed, against opening each file.

python benchmarks/listing.py
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from claims import Claim, report, seconds

from transferlens import cli
from transferlens.features.logmel import FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.store.config import RunConfig, Training
from transferlens.store.listing import list_runs, summarise
from transferlens.store.runfile import SEAL, RunState, write_state
from transferlens.store.schema import PROVENANCE, history_names

MARK = 0x1234_5678_9ABC_DEF0  # a seed of 8 bytes that are found again


@dataclass(frozen=True, kw_only=True)
class Options:
    """List a store of made-up runs."""

    n_runs: int = 10_000
    """Runs in the store."""


def write_store(folder: Path, n_runs: int) -> None:
    """Small runs that differ by the seed: one is written, the others are copies of its bytes with another seed."""
    config = RunConfig(
        dataset="made-up",
        data_key="0" * 64,
        features=FeatureSettings(22_050),
        fold="1",
        backbone="tf_efficientnet_lite0",
        plan=TransferPlan(),
        weights_sha256="0" * 64,
        seed=0,
        training=Training(epochs=12),
    )
    state = RunState(
        config=config,
        provenance=dict.fromkeys(PROVENANCE, "made up") | {"features_key": "0" * 64, "precision": "fp32"},
        label_names=["a", "b"],
        clip_ids=["1", "2"],
        labels=np.arange(2),
        normalisation=np.ones((2, 3)),
        history={name: [1.0] * 12 for name in history_names(config)},
        logits_last=np.eye(2, dtype=np.float32),
        logits_best=np.eye(2, dtype=np.float32),
        weights={"head.weight": np.zeros(1, np.float32)},
        fresh={"head.weight": np.zeros(1, np.float32)},
        optimizer={},
    )
    paths = [dataclasses.replace(config, seed=seed).path(folder) for seed in range(n_runs)]
    write_state(paths[0], state)
    with h5py.File(paths[0], "r+") as file:
        file["config"].attrs["seed"] = MARK
    content = bytearray(paths[0].read_bytes())
    start = content.index(MARK.to_bytes(8, "little"))
    for seed, path in enumerate(paths):
        content[start : start + 8] = seed.to_bytes(8, "little")
        path.write_bytes(content)
        SEAL.write(path)  # without a look at the whole folder


def work(options: Options) -> int:
    """List twice: the first time opens every file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder, max(1, options.n_runs))
        paths = list(folder.rglob("*.h5"))
        each = seconds(lambda: [summarise(path) for path in paths])
        first = seconds(lambda: list_runs(folder))
        again = seconds(lambda: list_runs(folder))
    beside = f"goal: under 2 s; the first time, which writes the index, {first:.1f} s"
    report(Claim(f"{options.n_runs} runs listed", "opening each file", again, each, "s", each / 2, beside))
    return cli.DONE


main = cli.Command("benchmarks/listing.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
