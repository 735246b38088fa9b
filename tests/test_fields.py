"""Options: values are converted to their types, checked against their rules, and named in one line."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas
import pytest

from transferlens.util.errors import ParameterError
from transferlens.util.fields import (
    Fields,
    above,
    at_least,
    between,
    build,
    described,
    flat,
    names,
    optional,
    signature,
    texts,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Inner(Fields):
    """A group."""

    folder: Path = Path("runs")
    """Where things
    are."""
    folds: tuple[str, ...] = ()
    """Which."""


@dataclass(frozen=True, kw_only=True)
class Outer(Fields):
    """A question's options."""

    table: Path
    """A table."""
    n: Annotated[int, between(1, 9)] = 3
    """A number."""
    rate: Annotated[float | None, above(0)] = None
    """A rate."""
    kind: Literal["a", "b"] = "a"
    """A kind."""
    inner: Inner = field(default_factory=Inner)
    seeds: tuple[Annotated[int, at_least(0)], ...] = (0,)
    """Numbers."""
    pair: tuple[int, int] = (1, 2)
    """Two."""
    flag: bool = False
    """Or not."""


@pytest.mark.parametrize(
    ("given", "name", "made"),
    [
        ({"n": np.int64(2)}, "n", 2),
        ({"rate": 1}, "rate", 1.0),
        ({"rate": None}, "rate", None),
        ({"seeds": 3}, "seeds", (3,)),
        ({"seeds": range(3)}, "seeds", (0, 1, 2)),
        ({"seeds": np.arange(2)}, "seeds", (0, 1)),
        ({"seeds": np.int64(3)}, "seeds", (3,)),
        ({"folds": np.array([1, 2])}, "folds", ("1", "2")),
        ({"flag": np.bool_(True)}, "flag", True),
        ({"kind": np.str_("b")}, "kind", "b"),
        ({"folder": "x"}, "folder", Path("x")),
        ({"folder": "~/x"}, "folder", Path.home() / "x"),
        ({"folds": "12"}, "folds", ("12",)),
        ({"folds": 1}, "folds", ("1",)),
        ({"folds": (1, "2")}, "folds", ("1", "2")),
        ({"fold": [1]}, "folds", ("1",)),
        ({"pair": [3, 4]}, "pair", (3, 4)),
        ({"table": Path("y")}, "table", Path("y")),
    ],
)
def test_what_people_type_is_converted(given, name, made):
    options = build(Outer, {"table": "x"} | given)
    assert flat(options)[name] == made
    assert type(flat(options)[name]) is type(made)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 10}, "n=10 must be 1 to 9"),
        ({"n": 2.5}, "n=2.5 must be a whole number"),
        ({"n": True}, "n=True must be a whole number"),
        ({"n": "2"}, "n='2' must be a whole number"),
        ({"n": 10**30}, "n must be 1 to 9"),
        ({"rate": 0}, "rate=0.0 must be greater than 0"),
        ({"rate": float("nan")}, "rate=nan must be a finite number"),
        ({"rate": 10**400}, "rate=1000.* must be a finite number"),
        ({"rate": 10**5000}, "rate=.*too many digits.* must be a finite number"),
        ({"rate": "fast"}, "rate='fast' must be a finite number"),
        ({"kind": "c"}, "kind='c' must be one of a, b"),
        ({"kind": np.array(["a", "b"])}, "kind=array.* must be one of a, b"),
        ({"folds": 1, "fold": 2}, "folds is given twice"),
        ({"seeds": [0, -1]}, "seeds=-1 must be at least 0"),
        ({"seeds": [None]}, "seeds=None must be a whole number"),
        ({"seeds": []}, r"seeds=\[\] names none: leave seeds out"),
        ({"seeds": range(10**9)}, "must be at most 1048576 values"),
        ({"pair": (1, 2, 3)}, r"pair=\(1, 2, 3\) must be 2 values"),
        ({"flag": 1}, "flag=1 must be true or false"),
        ({"folder": 3}, "folder=3 must be a path"),
        ({"folder": "a\0b"}, "must not hold a zero byte"),
        ({"folder": "é" * 200}, "must be a path whose names have at most 255 bytes"),
        ({"folder": pandas.DataFrame({"path": ["a"]})}, "must be a path: write the table to a csv file"),
        ({"folds": [1.5]}, "folds=1.5 must be a string, such as '1'"),
        ({"kinds": "a", "fold": 1, "xyz": 1}, "no option 'xyz': the options are table, n, rate"),
        ({"folds": []}, r"folds=\[\] names none: leave folds out for its default"),
        ({"foldes": 1}, "no option 'foldes': did you mean 'folds'"),
    ],
)
def test_what_cannot_work_is_one_line(given, message):
    with pytest.raises(ParameterError, match=message) as error:
        build(Outer, {"table": "x"} | given)
    assert "\n" not in str(error.value)


def test_what_must_be_given_is_named():
    with pytest.raises(ParameterError, match="table must be given"):
        build(Outer, {})


def test_a_base_keeps_what_is_not_given():
    base = build(Outer, {"table": "x", "n": 5, "folds": 1})
    assert flat(build(Outer, {"folder": "y"}, base=base)) == flat(base) | {"folder": Path("y")}


def test_options_are_described_own_ones_first():
    assert names(Outer)[:4] == ["table", "n", "rate", "kind"]
    assert texts(Inner)["folder"] == "Where things are."
    shown = signature(Outer, positional="table", hidden=("flag",))
    assert str(shown).startswith("(table, *, n=3, rate=None")
    assert shown.parameters["folder"].default == "runs"
    assert "flag" not in shown.parameters
    assert "folder : path, default 'runs'\n    Where things are." in described(Outer)
    assert shown.parameters["table"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_optional_fields_keep_types_and_rules():
    kind = optional(Outer, ["n", "kind"], words="Or not.")
    assert names(kind) == ["n", "kind"]
    assert flat(kind()) == {"n": None, "kind": None}
    assert texts(kind)["n"] == "A number. Or not."
    with pytest.raises(ParameterError, match="n=0 must be 1 to 9"):
        kind(n=0)
