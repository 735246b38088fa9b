"""The methods of attribution: one table says what each computes, what it takes, and whether it is complete.

- `TABLE` has a `Method` for each name, `METHODS` are the names, `DEFAULT` is the one that is used if none is named.
- `check_takes` raises if a method does not depend on an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from transferlens.measures import activations, gradients, integrated, perturbations
from transferlens.measures.task import Attributed, Task
from transferlens.util.errors import ParameterError

MethodName = Literal[
    "ig", "expected", "deeplift", "deepliftshap", "gradientshap", "smoothgrad", "smoothgrad-input", "gradcam",
    "layercam", "guided-gradcam", "occlusion", "rise", "lime", "kernelshap", "mask", "lrp",
]  # fmt: skip
# The method if none is named.
DEFAULT: MethodName = "ig"


@dataclass(frozen=True)
class Method:
    """One method of attribution.

    Attributes
    ----------
    function : callable
    title : str
    takes : tuple of str
        Those of the arguments references, baseline, tolerance, block, samples and patch that it depends on.
    complete : bool
        Whether its attributions sum to the change of the logit.
    samples : int
        Default number of gradients or outputs of methods that do not find out how many they need.
    blocks : tuple of int
        Blocks that it explains by default, counted from the end: -1 is the last.
    limited : bool
        Whether it explains some networks only, and raises ParameterError for others.
    """

    function: Callable[[Task], Attributed]
    title: str
    takes: tuple[str, ...] = ()
    complete: bool = False
    samples: int = 1
    blocks: tuple[int, ...] = ()
    limited: bool = False

    @property
    def needs_references(self) -> bool:
        """Whether it compares with other inputs instead of the baseline."""
        return "references" in self.takes


_HIDING = ("baseline", "patch")
TABLE: dict[str, Method] = {
    "ig": Method(integrated.integrated_gradients, "Integrated Gradients", ("baseline", "tolerance"), complete=True),
    "expected": Method(integrated.expected_gradients, "Expected Gradients", ("references", "tolerance"), complete=True),
    "deeplift": Method(gradients.deeplift, "DeepLIFT", ("baseline",), complete=True),
    "deepliftshap": Method(gradients.deeplift_shap, "DeepLIFT-SHAP", ("references",), complete=True),
    "gradientshap": Method(gradients.gradient_shap, "GradientSHAP", ("references", "samples"), samples=64),
    "smoothgrad": Method(gradients.smoothgrad, "SmoothGrad", ("samples",), samples=25),
    "smoothgrad-input": Method(
        gradients.smoothgrad_times_input, "SmoothGrad x input", ("baseline", "samples"), samples=25
    ),
    "gradcam": Method(activations.gradcam, "Grad-CAM", ("block",), blocks=(-1,)),
    "layercam": Method(activations.layercam, "LayerCAM", ("block",), blocks=(-3, -2, -1)),
    "guided-gradcam": Method(activations.guided_gradcam, "Guided Grad-CAM", ("block",), blocks=(-1,)),
    "occlusion": Method(perturbations.occlusion, "occlusion", _HIDING),
    "rise": Method(perturbations.rise, "RISE", (*_HIDING, "samples"), samples=500),
    "lime": Method(perturbations.lime, "LIME", (*_HIDING, "samples"), samples=500),
    "kernelshap": Method(perturbations.kernel_shap, "KernelSHAP", (*_HIDING, "samples"), complete=True, samples=500),
    "mask": Method(perturbations.mask, "mask by optimisation", (*_HIDING, "samples"), samples=200),
    "lrp": Method(gradients.lrp, "layer-wise relevance propagation", limited=True),
}
METHODS: tuple[MethodName, ...] = get_args(MethodName)


def check_takes(method: str, **given: Any) -> None:
    """Raise if a method does not depend on an argument that is given: neither None nor empty."""
    for name, value in given.items():
        if value is not None and value != () and name not in TABLE[method].takes:
            others = [other for other, row in TABLE.items() if name in row.takes]
            raise ParameterError(f"{name}={value} has no effect on method={method!r}, but on {', '.join(others)} only")
