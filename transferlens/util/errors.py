"""The errors that transferlens raises on purpose, and its warnings that are given once.

Each message is one line: which argument or file, what was found, what is allowed, what to do.
"""

from __future__ import annotations

import functools
import logging

log = logging.getLogger(__name__)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, if this process has not logged it yet."""
    log.warning(message)


class TransferLensError(Exception):
    """Base of all errors that a user can resolve; a command prints it in one line and exits with `exit_code`."""

    exit_code = 2


class ParameterError(TransferLensError, ValueError):
    """An argument has a value that is not allowed."""


class DataError(TransferLensError):
    """Clips, labels, folds or a feature cache cannot be used as they are."""


class CheckpointError(TransferLensError):
    """A run file or a weights file is missing, damaged, incomplete, or from another network."""


class MachineError(CheckpointError, DataError):
    """A file cannot be read for a reason of the machine, such as rights, locks or memory; the file may be whole."""


class SweepError(TransferLensError):
    """Some runs of a sweep failed; the others are finished and kept."""

    exit_code = 3
