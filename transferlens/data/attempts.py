"""Work on many clips in threads, and name all clips that cannot be read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from transferlens.util.errors import DataError
from transferlens.util.processes import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def attempt_each(
    action: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = DataError,
    bar: Any = None,
) -> list[Result | Exception]:
    """Return, for each item in order, what an action, called in threads, returns or the error that it raises.

    Errors of other types are raised. A bar of tqdm is advanced by one per item.
    """

    def attempt(item: Item) -> Result | Exception:
        try:
            return action(item)
        except errors as error:
            return error

    results = []
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(attempt, items):
            results.append(result)
            if bar is not None:
                bar.update()
    return results


def check_readable(results: Iterable[object], n_clips: int) -> None:
    """Raise DataError, naming every clip that cannot be read, if some results of `attempt_each` are errors."""
    if problems := [str(result) for result in results if isinstance(result, DataError)]:
        raise DataError(
            f"{len(problems)} of {n_clips} clips cannot be read: {'; '.join(problems)}. "
            "Repair or remove them, or leave them out with --skip-unreadable"
        )
