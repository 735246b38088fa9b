"""transferlens: what ImageNet-pretrained CNNs bring to audio, and where in the network it sits.

``import transferlens as tl`` reaches every module as ``tl.features``, ``tl.runs`` and so on; each is imported
when it is first used, so that the import itself is quick.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
