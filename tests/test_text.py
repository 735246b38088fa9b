"""Texts for people."""

import math

import pytest

from transferlens.util.text import counted, some, span, suggestion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (some("abc"), "a, b, c"),
        (some(range(52)), f"{', '.join(map(str, range(50)))} and 2 more"),
        (suggestion("blok", ["block", "folds"], "none"), "did you mean 'block'?"),
        (suggestion("x", ["block", "folds"], "none"), "none"),
        (counted(1, "fold"), "1 fold"),
        (counted(2, "fold"), "2 folds"),
        (counted(2, "class"), "2 classes"),
        (span(1, 2.25), "1.0 to 2.2"),
        (span(math.nan, math.nan), "none"),
    ],
)
def test_texts(text, expected):
    assert text == expected
