"""Process many clips in threads, and report all clips that cannot be read in one error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from transferlens.data.clips import Clip, DataSet
from transferlens.util.errors import DataError, MachineError
from transferlens.util.lazy import tqdm
from transferlens.util.processes import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def attempt_each(
    action: Callable[[Item], Result], items: Iterable[Item], *, bar: Any = None
) -> list[Result | DataError]:
    """Call `action` for every item, in threads; return each result, or its DataError, in the order of the items.

    Other errors are raised, and so is MachineError, which says nothing of the item. `bar`, a progress bar of tqdm, is
    advanced by one per item.
    """

    def attempt(item: Item) -> Result | DataError:
        """Return the result for an item, or its error."""
        try:
            return action(item)
        except MachineError:
            raise
        except DataError as error:
            return error

    results = []
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(attempt, items):
            results.append(result)
            if bar is not None:
                bar.update()
    return results


def read_each(
    read: Callable[[Clip], Result], dataset: DataSet, *, progress: bool = True
) -> dict[str, Result | DataError]:
    """Call `read` for every clip of a data set, in threads; return by id each result, or the DataError of the clip."""
    bar: Any = contextlib.nullcontext()
    if progress:
        bar = tqdm.tqdm(total=len(dataset.clips), desc=f"reading {dataset.name}", unit="clip", delay=2)
    with bar as shown:
        results = attempt_each(read, dataset.clips, bar=shown)
    return {clip.id: result for clip, result in zip(dataset.clips, results, strict=True)}


def check_readable(results: Iterable[object], n_clips: int) -> None:
    """Raise one DataError that names all clips that cannot be read, if a result of `attempt_each` is a DataError."""
    if problems := [str(result) for result in results if isinstance(result, DataError)]:
        raise DataError(
            f"{len(problems)} of {n_clips} clips cannot be read: {'; '.join(problems)}. "
            "Repair them or make them readable, or leave them out by skip_unreadable"
        )
