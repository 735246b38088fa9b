"""transferlens: what ImageNet-pretrained CNNs bring to audio, and where in the network it sits.

``import transferlens as tl`` reaches every module as ``tl.features``, ``tl.runs`` and so on; each is imported
when it is first used, so that the import itself is quick.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "attribution",
        "attribution_scores",
        "audit",
        "augment",
        "backbones",
        "by_block",
        "canonical",
        "config",
        "corruptions",
        "datasets",
        "demo",
        "display",
        "duplicates",
        "ensemble",
        "errors",
        "explanations",
        "explorer",
        "features",
        "freeze",
        "fuse",
        "input_form",
        "inputs",
        "layerwise",
        "layouts",
        "listen",
        "manifest",
        "memory",
        "moments",
        "network",
        "plan",
        "plan_grid",
        "precision",
        "predictions",
        "pretraining",
        "report",
        "robustness",
        "runs",
        "saliency",
        "saliency_figures",
        "saliency_tables",
        "selection",
        "similarity",
        "stats",
        "svcca",
        "sweep",
        "synth",
        "tables",
        "train",
        "trainer",
        "truncate",
        "weights",
    ],
)
