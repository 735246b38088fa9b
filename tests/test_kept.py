"""What was computed from finished runs is kept, and computed again if anything that it depends on has changed."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.store.kept import FOLDER, kept


@pytest.fixture
def compute():
    """A function that counts its calls; names are not in alphabetical order."""

    def count():
        count.calls += 1
        return {"b": np.arange(3.0), "a": [count.calls]}

    count.calls = 0
    return count


def test_arrays_are_computed_once_and_come_back_in_order(compute, tmp_path):
    first, second = (kept(tmp_path, ["question", "run", 1.5, None], compute) for _ in range(2))
    assert compute.calls == 1
    assert [*first] == [*second] == ["b", "a"]
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], strict=True)


def test_what_depends_on_something_else_is_computed(compute, tmp_path):
    for depends_on in (["a", 1], ["a", 2], ["a", [1]], ["b", 1]):
        kept(tmp_path, depends_on, compute)
    assert compute.calls == 4


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" + content])
def test_damaged_files_are_computed_again(damage, compute, tmp_path):
    kept(tmp_path, "question", compute)
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert kept(tmp_path, "question", compute)["a"] == [2]
    assert kept(tmp_path, "question", compute)["a"] == [2]


def test_without_a_folder_nothing_is_kept(compute):
    assert [kept(None, "question", compute)["a"] for _ in range(2)] == [[1], [2]]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        kept(tmp_path, "question", lambda: {"a": 1 / 0})
    assert not list(tmp_path.rglob("*.h5"))
