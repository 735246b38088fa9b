"""Work on many clips in threads, and name all clips that cannot be read at once.

- `attempt_each` returns the result, or the error, of every clip.
- `check_readable` raises one error that names every clip that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from transferlens.util.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _n_threads() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attempt_each(
    action: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = DataError,
    bar: Any = None,
) -> list[Result | Exception]:
    """Return, for each item in order, what an action returns or the error that it raises.

    Parameters
    ----------
    action : callable
        Takes an item; called in threads, one per core.
    items : iterable
        Clips, or anything that stands for them.
    errors : type of exception, or tuple of them
        Errors to return; others are raised.
    bar : tqdm, optional
        Progress bar to advance by one per item.
    """

    def attempt(item: Item) -> Result | Exception:
        try:
            return action(item)
        except errors as error:
            return error

    results = []
    with ThreadPoolExecutor(_n_threads()) as pool:
        for result in pool.map(attempt, items):
            results.append(result)
            if bar is not None:
                bar.update()
    return results


def check_readable(results: Iterable[object], n_clips: int) -> None:
    """Raise if some results of `attempt_each` are errors.

    Parameters
    ----------
    results : iterable
        Results or errors, of which only the errors need be given.
    n_clips : int > 0
        Number of clips that were attempted.

    Raises
    ------
    DataError
        Naming every clip that cannot be read.
    """
    if problems := [str(result) for result in results if isinstance(result, DataError)]:
        raise DataError(
            f"{len(problems)} of {n_clips} clips cannot be read: {'; '.join(problems)}. "
            "Repair or remove them, or leave them out with --skip-unreadable"
        )
