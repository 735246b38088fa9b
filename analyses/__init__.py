"""The study on real data: one script per question, run as ``python -m analyses.<script>``; `all` runs all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlens.data.catalogue import permuted_name
from transferlens.util.fields import flat

if TYPE_CHECKING:
    from transferlens.study import Step

# The networks whose ImageNet weights are installed as packages; questions about one network use the first.
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


def placed(step: Step, name: str, data: Mapping[str, Any], figures: Path) -> Step:
    """Return a step with a data set: its options and, below `figures`, a folder of its name for what the step writes.

    A step that has a generated data set keeps it.
    """
    own = flat(step.options)
    if own["dataset"] is not None:
        name, data = own["dataset"], {}
    elif (seed := own.get("permute_labels")) is not None:
        name = permuted_name(name, seed)
    return step.given({**data, "figures": figures / name})
