"""Plots: what is drawn, and files that are complete and the same each time."""

from __future__ import annotations

import base64
import inspect
import io
import itertools
from types import SimpleNamespace

import matplotlib.axes
import matplotlib.collections
import matplotlib.image
import matplotlib.lines
import matplotlib.patches
import matplotlib.text
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from transferlens.measures.stats import Interval
from transferlens.plots import accuracy, rewind, spectrogram, style

GROUPS = {"net": {"a": [0.8, 0.9, 1.0], "b": [0.5, 0.6, 0.7]}}
INTERVAL = Interval(0.1, 0.05, 0.15, 5)
LEVELS = {"quantity": {"a": INTERVAL}}
SQUARE = np.linspace(0, 1, 9).reshape(3, 3)

DRAWN = {
    "points_and_means": lambda ax: accuracy.points_and_means(GROUPS, ax=ax),
    "band": lambda ax: accuracy.band([0.8, 0.9], colour=(0, 0, 0), label="a", ax=ax),
    "level_lines": lambda ax: accuracy.level_lines({"chance": 0.1}, ax=ax),
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
    "evidence": lambda ax: spectrogram.evidence(SQUARE - 0.5, seconds=2.0, ax=ax),
    "outline": lambda ax: spectrogram.outline(SQUARE > 0.5, seconds=2.0, ax=ax),
    "band_profile": lambda ax: spectrogram.band_profile(
        [SimpleNamespace(share=0.5, low=0.4, high=0.6)] * 3, colour="r", ax=ax
    ),
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
        if function.__module__ == module.__name__ and "ax" in inspect.signature(function).parameters
    }
    assert {name for name in drawing if not name.startswith("_")} == DRAWN.keys()


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


def test_one_epoch_is_a_mark_and_a_quantity_without_values_an_empty_row():
    ax = accuracy.learning_curves({"a": [[0.1], [0.3]]})
    assert {line.get_marker() for line in ax.lines} == {"o"}
    assert ax.get_xticks().tolist() == [1]
    ax = accuracy.intervals({"first": {}, **LEVELS}, palette={"a": (0, 0, 0)})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "quantity"]
    assert {tuple(line.get_ydata()) for line in ax.lines[:2]} == {(1, 1), (1,)}


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


def test_a_band_and_its_line_are_one_entry_of_the_legend():
    fig, axes = style.new_figure(width=4, height=3)
    ax = accuracy.band([0.4, 0.5, 0.8], colour=(0, 0, 0), label="from scratch", ax=axes[0, 0])
    ax.plot([0], [0], label="alone")
    entries = style.entries_of(ax)
    assert [*entries] == ["from scratch", "alone"]
    band, line = entries["from scratch"]
    assert isinstance(band, matplotlib.patches.Patch)
    assert isinstance(line, matplotlib.lines.Line2D)
    style.legend_below(fig, ax)
    fig.savefig(io.BytesIO())
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["from scratch", "alone"]
    assert len(fig.legends[0].get_patches()) == 1


def test_names_of_levels_can_be_read_over_data():
    (label,) = accuracy.level_lines({"chance": 0.1}).texts
    (effect,) = label.get_path_effects()
    assert effect._gc["foreground"] == "white"


def test_levels_are_lines_with_names_and_close_ones_have_one_text():
    ax = accuracy.level_lines({"chance": 0.1, "always the commonest class": 0.312})
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([10, 31.2])
    assert [text.get_text() for text in ax.texts] == ["chance 10.0\u00a0%", "always the commonest class 31.2\u00a0%"]
    ax = accuracy.level_lines({"chance": 0.1, "always the commonest class": 0.12})
    assert [text.get_text() for text in ax.texts] == ["always the commonest class 12.0\u00a0%; chance 10.0\u00a0%"]
    assert not accuracy.level_lines({"chance": 0.1}, named=False).texts


def test_a_single_value_is_drawn_once():
    ax = accuracy.points_and_means({"net": {"a": [0.8]}})
    assert [list(line.get_ydata()) for line in ax.lines] == [[80]]
    assert list(ax.lines[0].get_xdata()) == [0]


LONG = "mean accuracy of a network with a very long name that is wider than one column of a paper"


def crowded():
    """A figure of four panels whose text is too long for a narrow page."""
    fig, axes = style.new_figure(2, 2, width=11, height=7, sharex="col", sharey="row", height_ratios=[2, 1])
    for ax in axes.flat:
        accuracy.points_and_means({f"{name} from scratch": {LONG: [0.1, 0.9]} for name in "abcdef"}, ax=ax)
        ax.set(title=LONG, xlabel=LONG, ylabel=LONG)
        accuracy.level_lines({"chance": 0.1, "always the commonest class": 0.312}, ax=ax)
    style.legend_below(fig, axes[0, 0], marks=style.fold_marks(2) | style.change_marks(2))
    style.title(fig, f"{LONG}, {LONG}")
    return fig, axes


@pytest.mark.parametrize("width", [None, "8cm", "17cm"])
def test_nothing_is_clipped_and_no_labels_overlap(width):
    with style.look(width=width):
        fig, axes = crowded()
        style.fitted(fig)
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw_without_rendering()
    page = fig.bbox
    for text in fig.findobj(matplotlib.text.Text):
        box = text.get_window_extent(renderer)
        if text.get_visible() and text.get_text() and text.get_figure(root=True) is fig and box.width:
            assert page.x0 - 1 <= box.x0, text
            assert box.x1 <= page.x1 + 1, text
    for ax in axes.flat:
        boxes = [text.get_window_extent(renderer) for text in ax.get_xticklabels() if text.get_visible()]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(("width", "lines"), [("17cm", 1), ("8cm", 2)])
def test_narrow_figures_have_one_size_of_text_and_panels_below_each_other(width, lines):
    with style.look(width=width):
        fig, axes = crowded()
        style.fitted(fig)
    assert fig.get_figwidth() == pytest.approx(style.inches(width))
    assert {text.get_fontsize() for text in fig.findobj(matplotlib.text.Text) if text.get_text()} == {style.POINTS}
    fig.draw_without_rendering()
    places = [ax.get_position() for ax in axes[0]]
    assert len({round(place.y0, 2) for place in places}) == lines
    assert axes[0, 1].get_shared_y_axes().joined(axes[0, 0], axes[0, 1])
    assert axes[1, 1].get_shared_x_axes().joined(axes[0, 1], axes[1, 1])
    assert not axes[1, 1].get_shared_x_axes().joined(axes[1, 0], axes[1, 1])


def test_titles_may_be_left_out():
    with style.look(titles=False):
        fig, axes = crowded()
    assert fig.get_suptitle() == ""
    assert axes[0, 0].get_title() == LONG  # says what differs between panels
    assert crowded()[0].get_suptitle().replace("\n", " ") == f"{LONG}, {LONG}"


def test_parts_of_a_figure_grow_with_their_panels():
    with style.look(width="8cm"):
        fig, (above, below) = style.new_parts([2, 1], width=12, height=6)
        before = fig.get_figheight()
        style.subplots(above, 1, 4)
        style.subplots(below, 1, 1)
    assert fig.get_figheight() == pytest.approx(before / 3 + 2 * style.LOWER * before * 2 / 3)


@pytest.mark.parametrize(("width", "found"), [("8cm", 8 / 2.54), ("85mm", 8.5 / 2.54), ("3.5 in", 3.5)])
def test_widths_have_units(width, found):
    assert style.inches(width) == pytest.approx(found)
    assert style.WIDTH.holds(width)


@pytest.mark.parametrize("width", ["8", "cm", "8 km", "1cm", "90cm", "-8cm", "nan cm"])
def test_other_widths_are_not(width):
    assert not style.WIDTH.holds(width)


def test_intervals_of_blocks_put_back_are_of_accuracies():
    row = SimpleNamespace(
        what="all", statistics="anew", block=0, accuracy=0.95, accuracy_run=0.9, change=0.05, change_low=-1.0,
        change_high=0.2, needed="nothing",
    )  # fmt: skip
    ax = rewind.put_back([row], palette={"all": "C0"})
    ((low, high),) = [
        part.get_segments()[0][:, 1]
        for part in ax.collections
        if isinstance(part, matplotlib.collections.LineCollection)
    ]
    assert (low, high) == pytest.approx((0, 100))
