"""Read a run with h5py alone: settings, history, held-out logits and weights, without this package."""

from pathlib import Path

import h5py
import numpy as np

for path in sorted(Path("runs").rglob("*.h5"))[:3]:
    with h5py.File(path) as file:
        logits, labels = file["logits_last"][:], file["labels"][:]
        names = file["label_names"].asstr()[:]
        print(path.name, dict(file["config"].attrs)["backbone"])
        print("  accuracy by epoch", np.round(file["history/heldout_accuracy"][:], 3))
        confused = labels[logits.argmax(1) != labels]
        print("  most often wrong:", names[np.bincount(confused, minlength=len(names)).argmax()])
        print("  first weights", next(iter(file["weights"].items())))
