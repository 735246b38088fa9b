"""The study on ESC-10, a script a question, run as ``python -m analyses.<script>``; `all` makes all of it."""

from dataclasses import fields
from typing import Any

from transferlens.data.catalogue import DataOptions
from transferlens.features.logmel import FeatureOptions
from transferlens.study import Step
from transferlens.training.sweep import SweepOptions

# The networks whose ImageNet weights are installed as packages; questions asked of one network are asked of the first.
BACKBONES = ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"]
HANDED_ON = {field.name for kind in (DataOptions, FeatureOptions) for field in fields(kind)} | {"figures", "device"}


def on_runs(command: str, options: SweepOptions, **own: Any) -> int:
    """Do a command with options of its own, and the data and folders that the script was given; its exit code."""
    given = {name: getattr(options, name) for name in sorted(HANDED_ON)}
    words = {
        name: value if isinstance(value, bool) else [*map(str, value)] if isinstance(value, tuple) else str(value)
        for name, value in given.items()
        if value not in (None, ())
    }
    step = Step(command, own).given(words)
    return step.module.main(step.argv())
