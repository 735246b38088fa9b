"""Plots: what is drawn, and files that are complete and the same each time."""

from __future__ import annotations

import base64
import inspect
import io

import matplotlib.axes
import matplotlib.image
import numpy as np
import pytest

from transferlens.measures.stats import Interval
from transferlens.plots import accuracy, spectrogram, style

GROUPS = {"net": {"a": [0.8, 0.9, 1.0], "b": [0.5, 0.6, 0.7]}}
INTERVAL = Interval(0.1, 0.05, 0.15, 5)
LEVELS = {"quantity": {"a": INTERVAL}}
SQUARE = np.linspace(0, 1, 9).reshape(3, 3)

DRAWN = {
    "points_and_means": lambda ax: accuracy.points_and_means(GROUPS, ax=ax),
    "band": lambda ax: accuracy.band([0.8, 0.9], colour=(0, 0, 0), label="a", ax=ax),
    "changes": lambda ax: accuracy.changes({"a": [(0, INTERVAL)]}, ax=ax),
    "accuracy_against": lambda ax: accuracy.accuracy_against({"a": {"point": (1, [0.5, 0.6])}}, xlabel="x", ax=ax),
    "heat_map": lambda ax: accuracy.heat_map(
        SQUARE, SQUARE, rows="abc", columns="abc", xlabel="x", ylabel="y", limits=(0, 1), ax=ax
    ),
    "similarity_map": lambda ax: accuracy.similarity_map(SQUARE, xlabel="x", ylabel="y", ax=ax),
    "confusion_map": lambda ax: accuracy.confusion_map(SQUARE, names="abc", ax=ax),
    "against_size": lambda ax: accuracy.against_size({"a": [(1, 0.5, 0.4, 0.6), (2, 0.6, 0.5, 0.7)]}, ax=ax),
    "stacked_bars": lambda ax: accuracy.stacked_bars(["a", "b"], {"part": [0.1, 0.2]}, ylabel="y", ax=ax),
    "reliability_diagram": lambda ax: accuracy.reliability_diagram({("a", "single"): [(0.5, 0.6, 9)]}, ax=ax),
    "learning_curves": lambda ax: accuracy.learning_curves({"a": [[0.1, 0.2]]}, ax=ax),
    "intervals": lambda ax: accuracy.intervals(LEVELS, marks={}, palette={"a": (0, 0, 0)}, ax=ax),
    "stages": lambda ax: accuracy.stages(LEVELS, ax=ax),
    "spectrogram": lambda ax: spectrogram.spectrogram(SQUARE, seconds=None, hz=np.array([1, 500, 900]), ax=ax),
    "attribution_map": lambda ax: spectrogram.attribution_map(SQUARE, seconds=2.0, ax=ax),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_function_draws_on_the_axes_given_or_on_new_ones(name):
    given = style.new_figure(width=4, height=3)[1][0, 0]
    assert DRAWN[name](given) is given
    ax = DRAWN[name](None)
    assert isinstance(ax, matplotlib.axes.Axes)
    assert ax is not given
    ax.figure.savefig(io.BytesIO())


def test_every_function_is_tested():
    drawing = {
        name
        for module in (accuracy, spectrogram)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {name for name in drawing if not name.endswith("_image")} == DRAWN.keys()


def test_points_and_means_draws_every_value():
    fig, axes = style.new_figure(width=4, height=3)
    ax = accuracy.points_and_means(
        GROUPS, beside={"net": {"a": [0.81, 0.91, 1.0], "b": [0.6, 0.6, 0.7]}}, ax=axes[0, 0]
    )
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    for values in (*GROUPS["net"].values(), [0.81, 0.91]):
        for value in values:
            assert np.isclose(drawn, 100 * value).any()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["net"]


def test_one_value_is_drawn_without_interval():
    fig, axes = style.new_figure(width=4, height=3)
    accuracy.points_and_means({"net": {"a": [0.8]}}, ax=axes[0, 0])
    assert all(np.isfinite(np.asarray(line.get_ydata(), float)).all() for line in axes[0, 0].lines)
    assert not axes[0, 0].collections


def test_learning_curves_draws_runs_and_mean():
    ax = accuracy.learning_curves({"a": [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]]})
    assert len(ax.lines) == 3
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), [20, 30, 40])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])


def test_save_figure_writes_the_same_bytes(tmp_path):
    def save(folder):
        fig, axes = style.new_figure(width=4, height=3)
        accuracy.points_and_means(GROUPS, ax=axes[0, 0])
        return style.save_figure(fig, tmp_path / folder / "x.y")

    first, second = save("a"), save("b")
    assert [path.name for path in first] == ["x.y.png", "x.y.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["x.y.pdf", "x.y.png"]


def test_a_dollar_in_a_name_is_not_a_formula(tmp_path):
    fig, axes = style.new_figure(width=3, height=2)
    axes[0, 0].set_title("$_$")
    style.save_figure(fig, tmp_path / "figure")
    assert (tmp_path / "figure.png").is_file()


def test_colours_are_distinct():
    assert len(set(style.colours(list("abcdef")).values())) == 6


def test_failed_save_leaves_the_old_figure(tmp_path, monkeypatch):
    fig, axes = style.new_figure(width=4, height=3)
    (png, _) = style.save_figure(fig, tmp_path / "x")
    before = png.read_bytes()

    def broken(path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(fig, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        style.save_figure(fig, tmp_path / "x")
    assert png.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_changes_are_full_where_the_interval_excludes_zero():
    intervals = [
        (0.5, Interval(0.1, 0.05, 0.15, 5)),
        (1.5, Interval(0.1, -0.1, 0.3, 5)),
        (2.5, Interval(0.2, np.nan, np.nan, 1)),
    ]
    ax = accuracy.changes({"a": intervals})
    marks = [line for line in ax.lines if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, True, True]
    assert [line.get_ydata()[0] for line in marks] == pytest.approx([10, 10, 20])
    assert len(ax.containers) == 3


def test_band_of_one_value_is_a_line():
    ax = style.new_figure(width=4, height=3)[1][0, 0]
    accuracy.band([0.9], colour=(0, 0, 0), label="one", ax=ax)
    assert not ax.patches
    accuracy.band([0.8, 0.9], colour=(0, 0, 0), label="two", ax=ax)
    assert len(ax.patches) == 1


def test_accuracy_against_names_its_points():
    ax = accuracy.accuracy_against({"a": {"Block 1": (0.02, [0.5, 0.6]), "Block 2": (2.0, [0.9, 0.9])}}, xlabel="size")
    assert [text.get_text() for text in ax.texts] == ["Block 1", "Block 2"]
    assert ax.get_xscale() == "log"


def test_heat_map_writes_mean_and_error_and_leaves_gaps():
    means, errors = np.array([[0.5, np.nan], [0.75, 0.9]]), np.array([[0.01, np.nan], [np.nan, 0.02]])
    ax = accuracy.heat_map(
        means, errors, rows=["a", "b"], columns=["c", "d"], xlabel="x", ylabel="y", limits=(0, 1), scale=False
    )
    assert [text.get_text() for text in ax.texts] == ["50.0\n± 1.0", "75.0", "90.0\n± 2.0"]
    assert len(ax.figure.axes) == 1


def test_groups_may_have_different_arms():
    ax = accuracy.points_and_means({"none": {"reference": [0.9]}, "1": {"a": [0.5], "b": [0.6]}})
    assert ax.get_legend_handles_labels()[1] == ["reference", "a", "b"]


def pixels(uri):
    prefix, _, data = uri.partition(",")
    assert prefix == "data:image/png;base64"
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))


def test_images_have_one_pixel_per_cell_and_the_highest_band_on_top():
    S = np.zeros((8, 12))
    S[-1] = 1
    image = pixels(spectrogram.spectrogram_image(S))
    assert image.shape == (8, 12, 4)
    assert (image[0, :, :3] < 0.1).all()
    assert (image[1:, :, :3] > 0.9).all()


def test_attributions_are_red_for_and_blue_against_the_class():
    values = np.repeat([[3.0], [0.0], [-3.0]], 20, axis=0) * np.ones(20)
    image = pixels(spectrogram.attribution_image(values))[::-1]
    red, blue, opacity = image[..., 0], image[..., 2], image[..., 3]
    assert (red[5] > blue[5]).all()
    assert (red[-5] < blue[-5]).all()
    assert (opacity[30] < 0.1 * opacity[5]).all()
