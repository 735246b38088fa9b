"""Process many clips in threads, and report all clips that cannot be read in one error."""

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
    """Call `action` for every item, in threads; return each result, or the error raised, in the order of the items.

    Only errors of the types in `errors` are returned; others are raised. `bar`, a progress bar of tqdm, is advanced by
    one per item.
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
    """Raise one DataError that names all clips that cannot be read, if a result of `attempt_each` is a DataError."""
    if problems := [str(result) for result in results if isinstance(result, DataError)]:
        raise DataError(
            f"{len(problems)} of {n_clips} clips cannot be read: {'; '.join(problems)}. "
            "Repair or remove them, or leave them out by skip_unreadable"
        )
