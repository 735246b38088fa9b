"""Whether what is faster is as accurate: the same runs in fp32, and with augmentation, paired by fold.

    python benchmarks/accuracy.py --clips path/to/esc10/clips.csv

EfficientNet-Lite0, preset quick, all folds; what the run store has is not trained again (about an hour from nothing on
two cores).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan
from transferlens.store.rows import RunRow, row_of
from transferlens.training.sweep import Study, StudyOptions
from transferlens.util.fields import build

# What is compared with the runs as they are by default.
ARMS = {"plain fp32": {"precision": "fp32"}, "with augmented variants": {"augment": "spectrum"}}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Accuracy of the fast ways and of the plain one."""


def work(options: Options) -> int:
    """Train what is missing, print accuracies and differences."""
    found = {}
    for name, changes in ({"as by default": {}} | ARMS).items():
        runs = Study.of(build(Options, changes, base=options)).runs(TransferPlan.finetune())
        found[name] = stats.by_fold([row_of(RunRow, run) for run in runs], "accuracy_last")
        print(f"{name}: {stats.fold_interval(found[name])}")
    base = found["as by default"]
    for name in ARMS:
        print(f"{name}, less as by default: {stats.paired_difference(found[name], base)}")
    return cli.DONE


main = cli.Command("benchmarks/accuracy.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
