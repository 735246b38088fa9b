"""Results that are computed once during work that reads files and changes none, such as the check of a whole study."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_results: ContextVar[dict[Any, Any] | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Compute functions that are decorated by `once` once per arguments in a ``with`` block, and then forget them."""
    token = _results.set({} if (known := _results.get()) is None else known)
    try:
        yield
    finally:
        _results.reset(token)


def once(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function of hashable arguments whose results may be `remembered`; otherwise it is computed each time.

    Examples
    --------
    >>> look = once(lambda path: print(f"reading {path}"))
    >>> with remembered():
    ...     look("a.csv"), look("a.csv")
    reading a.csv
    (None, None)
    """

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Return the remembered result of these arguments, or compute it."""
        known = _results.get()
        if known is None:
            return function(*args, **kwargs)
        key = (function, args, tuple(sorted(kwargs.items())))
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return call
