"""The errors that transferlens raises on purpose. Each message is one line: what was found, the rule, the remedy."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CheckpointError", "DataError", "DryRun", "ParameterError", "SweepError", "TransferLensError"]


class TransferLensError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 2


class ParameterError(TransferLensError, ValueError):
    """An argument has a value outside its rule."""


class DataError(TransferLensError):
    """Clips, labels, folds or a feature cache cannot be used as they are."""


class CheckpointError(TransferLensError):
    """A run file or a weights file is missing, damaged, incomplete or of another network."""


class DryRun(Exception):
    """What would be trained, instead of training it: no error, but the end of a command.

    Attributes
    ----------
    ids : list of str
        The runs asked for.
    rows : function to list of planning.Planned
        What each has before it, which is measured when it is asked.
    text : function of such a list to str
    """

    def __init__(self, ids: list[str], rows: Callable[[], list], text: Callable[[list], str]) -> None:
        super().__init__(f"{len(ids)} runs")
        self.ids, self.rows, self.text = ids, rows, text


class SweepError(TransferLensError):
    """Some runs of a sweep failed; the others are finished and kept."""

    exit_code = 3
