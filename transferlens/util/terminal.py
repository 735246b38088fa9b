"""The terminal: all that commands print goes through here, so that no text from a file can control it."""

from __future__ import annotations

import logging
import sys

from transferlens.util.text import printable

KEPT = "\n\t"


def say(*lines: str, error: bool = False, flush: bool = False) -> None:
    """Print lines to stdout, or an error in one line to stderr, without control characters."""
    text = "\n".join(lines)
    if error:
        print(f"error: {printable(' '.join(text.split()))}", file=sys.stderr)
    else:
        print(printable(text, keep=KEPT), flush=flush)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep=KEPT)


def log_to_stderr(level: int) -> None:
    """Write the package's messages from a level on, and warnings of others, to stderr, without control characters."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("transferlens").setLevel(level)
