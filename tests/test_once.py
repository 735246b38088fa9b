"""Results that are computed once while nothing changes, and again afterwards."""

from __future__ import annotations

import pytest

from transferlens.data.catalogue import DataOptions
from transferlens.util.once import once, remembered


def test_results_are_remembered_only_where_asked():
    calls = []
    look = once(lambda path: calls.append(path) or len(calls))
    assert (look("a"), look("a")) == (1, 2)
    with remembered():
        assert (look("a"), look("b"), look("a")) == (3, 4, 3)
        with remembered():
            assert look("b") == 4
    assert look("a") == 5


def test_an_error_ends_it():
    look = once(lambda: object())
    with pytest.raises(ValueError, match="ended"), remembered():
        look()
        raise ValueError("ended")
    assert look() is not look()


def test_clips_are_read_anew_after_a_check(clips):
    options = DataOptions(clips=clips)
    with remembered():
        assert options.open() is options.open()
        assert options.open() is not DataOptions(clips=clips, width=32).open()
    assert options.open() is not options.open()
