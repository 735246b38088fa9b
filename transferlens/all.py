"""The whole study on real data, as ``python -m analyses.all``, wherever transferlens is installed."""

from __future__ import annotations

import dataclasses
import sys

from analyses.all import Options
from analyses.all import main as study

__all__ = ["Options", "main"]

main = dataclasses.replace(study, name="all")

if __name__ == "__main__":
    sys.exit(main())
