"""Questions by block and the plan grid: their plans, tables, figures and commands."""

from __future__ import annotations

import csv
import dataclasses
import math
import re

import numpy as np
import pytest
from matplotlib.image import imread

from transferlens import freeze, fuse, norm, plan_grid, reverse, statistics, surgical, truncate
from transferlens.compare import by_block
from transferlens.measures import stats
from transferlens.models import build as networks
from transferlens.models.plan import TransferPlan
from transferlens.plots.fit import LEVEL
from transferlens.util.errors import ParameterError
from transferlens.util.fields import build, flat

COMMANDS = {"freeze": freeze, "fuse": fuse, "truncate": truncate}
BY_LETTERS = {"statistics": statistics, "reverse": reverse, "surgical": surgical, "norm": norm}


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------- plans


def test_plans_of_each_analysis():
    (frozen,) = freeze.analysis().plans.values()
    (fused,) = fuse.ANALYSIS.plans.values()
    (cut,) = truncate.ANALYSIS.plans.values()
    assert frozen == {None: TransferPlan()} | {k: TransferPlan(4, k, 4) for k in range(5)}
    assert fused == {None: TransferPlan(None)} | {k: TransferPlan(k, None, 4) for k in range(5)}
    assert cut == {k: TransferPlan(4, None, k) for k in range(1, 5)}


def test_batchnorm_is_a_factor_of_freezing():
    fixed, updating = freeze.analysis(("fixed", "updating")).plans.values()
    assert [plan.bn for plan in fixed.values()] == ["fixed"] * 6
    assert [plan.bn for block, plan in updating.items() if block is not None] == ["updating"] * 5


def test_plans_by_letters():
    random, normal, permuted = statistics.analysis().plans.values()
    (backwards,) = reverse.ANALYSIS.plans.values()
    (one,) = surgical.ANALYSIS.plans.values()
    pretrained, scratch = norm.ANALYSIS.plans.values()
    assert random == fuse.ANALYSIS.plans["weight fusion"]
    assert [plan.start for plan in normal.values()] == ["iiiii", "Iiiii", "IIiii", "IIIii", "IIIIi", "IIIII"]
    assert [plan.start for plan in permuted.values()] == [plan.start for plan in normal.values()]
    assert [plan.statistics for plan in permuted.values()] == ["permuted"] * 5 + ["normal"]  # the last is fine-tuning
    assert [plan.start for plan in backwards.values()] == ["IIIII", "RIIII", "RRIII", "RRRII", "RRRRI", "RRRRR"]
    assert [plan.train for plan in one.values()] == ["FFFFF", "AFFFF", "FAFFF", "FFAFF", "FFFAF", "FFFFA"]
    assert [plan.train for plan in pretrained.values()] == ["AAAAA", "NAAAA", "NNAAA", "NNNAA", "NNNNA", "NNNNN"]
    assert [plan.train for plan in scratch.values()] == [plan.train for plan in pretrained.values()]
    assert {plan.start for plan in pretrained.values()} == {"IIIII"}
    assert {plan.start for plan in scratch.values()} == {"RRRRR"}


def test_statistics_shares_the_runs_of_fusion(options, monkeypatch):
    from transferlens.training.sweep import Study

    asked = {}

    def stop(self, points):
        asked[command].update(point.id for point in points)
        raise ParameterError("far enough")

    monkeypatch.setattr(Study, "gather", stop)
    for command, module in (("fuse", fuse), ("statistics", statistics)):
        asked[command] = set()
        assert module.main(options) == 2
    folds, places = 3, 5
    assert asked["fuse"] < asked["statistics"]
    assert len(asked["statistics"] - asked["fuse"]) == 2 * folds * places


@pytest.mark.parametrize(
    ("analysis", "blocks", "references", "places"),
    [
        (statistics.analysis(("normal",)), (), True, [None, 0, 1, 2, 3, 4] * 2),
        (statistics.analysis(("normal",)), (2,), False, [2, None, 2]),  # of random weights, none is a reference
        (reverse.ANALYSIS, (), True, [0, 1, 2, 3, 4, None]),
        (reverse.ANALYSIS, (3, 1), True, [0, 1, 3, None]),
        (surgical.ANALYSIS, (2,), True, [None, 2]),
        (surgical.ANALYSIS, (2,), False, [None, 2]),  # the head alone is a control, not a reference
        (norm.ANALYSIS, (2,), True, [None, 2, None, 2]),
        (fuse.ANALYSIS, (), True, [None, 0, 1, 2, 3, 4]),
        (fuse.ANALYSIS, (2,), True, [None, 2, 4]),
        (fuse.ANALYSIS, (3, 1), False, [1, 3]),
        (truncate.ANALYSIS, (3,), True, [3, 4]),
        (freeze.analysis(), (0, 4), True, [None, 0, 4]),
        (freeze.analysis(), (), False, [0, 1, 2, 3, 4]),
        (surgical.ANALYSIS, (), False, [None, 0, 1, 2, 3, 4]),
    ],
)
def test_blocks_asked_for_stand_between_references(analysis, blocks, references, places):
    assert [block for _, block in analysis.select(blocks, references=references)] == places


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        (
            "freeze",
            ["--block", "5"],
            "block=5 must be among 0, 1, 2, 3, 4 for freeze: it names the last block held fixed",
        ),
        ("fuse", ["--block", "-1", "1"], "block=-1 must be among 0, 1, 2, 3, 4 for fuse"),
        ("truncate", ["--block", "0"], "block=0 must be among 1, 2, 3, 4 for truncate: it names the last block kept"),
        ("truncate", ["--block", "7", "1", "9"], "block=7 9 must be among"),
        ("freeze", ["--bn"], "Error parsing --bn: it needs one value or more"),
    ],
)
def test_blocks_that_are_not_there_are_one_line_and_exit_code_2(name, argv, message, capsys, tmp_path):
    assert COMMANDS[name].main([*argv, f"--figures={tmp_path / 'figures'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "figures").exists()


# ------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", COMMANDS)
def test_command_writes_one_stem_and_trains_nothing_twice(name, options, tmp_path, capsys):
    argv = [*options, "--folds", "1", "2", "--block", "1", "3"]
    assert COMMANDS[name].main(argv) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        f"{name}.{suffix}" for suffix in ("csv", "pdf", "png")
    ]
    table = read(tmp_path / "figures" / f"{name}.csv")
    places = {"freeze": ["none", "1", "3"], "fuse": ["none", "1", "3", "4"], "truncate": ["1", "3", "4"]}[name]
    assert list(dict.fromkeys(row["block"] for row in table if row["block"])) == places
    assert {row["arm"] for row in table} == {"block", "pretrained", "scratch"}
    assert {row["analysis"] for row in table} == {name}
    assert len({row["run"] for row in table}) == len(table) == 8
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert COMMANDS[name].main(argv) == 0
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == files


def test_both_ways_of_batchnorm_stand_beside_each_other(options, tmp_path, capsys):
    argv = [*options, "--folds", "1", "--block", "2", "--bn", "fixed", "updating"]
    assert freeze.main(argv) == 0
    table = read(tmp_path / "figures" / "freeze.csv")
    assert [(row["variant"], row["block"]) for row in table] == [
        ("", "none"), ("BatchNorm fixed", "2"), ("BatchNorm updating", "2"), ("", ""),
    ]  # fmt: skip
    assert "n = 1" in capsys.readouterr().out


def test_without_references(options, tmp_path):
    assert truncate.main([*options, "--folds", "1", "--block", "2", "--no-references"]) == 0
    (row,) = read(tmp_path / "figures" / "truncate.csv")
    assert (row["block"], row["change"], row["change_n"]) == ("2", "nan", "0")


class FakeRun:
    """What a row is read from."""

    def __init__(self, config, accuracy):
        self.config, self.score_last, self.score_best = config, accuracy, accuracy + 0.01
        self.scoring, self.lwlrap = config.scoring, np.nan
        self.n_train, self.labels, self.n_recordings, self.weights = 16, np.zeros(8), 0, "ImageNet"
        self.history, self.cost = {"seconds": np.array([1.0, 2.0])}, config.cost(2)
        self.macro_f1, self.class_ratio = accuracy, 1.0
        self.chance, self.commonest = 0.125, 0.375


@pytest.fixture
def made(study):
    """Results of made-up accuracies: block to (fold x seed) accuracies."""

    def make(analysis, accuracies, references=None, **options):
        named = study(**({"folds": ("1", "2", "3")} | options))

        def runs(plan, values):
            points = named.points(plan)
            return [FakeRun(point, value) for point, value in zip(points, values, strict=True)]

        ((variant, plans),) = analysis.plans.items()
        arms = {(variant, block): runs(plans[block], values) for block, values in accuracies.items()}
        bands = {arm: runs(by_block.REFERENCES[arm], values) for arm, values in (references or {}).items()}
        return by_block.compare(analysis, arms, bands)

    return make


def test_changes_are_paired_by_fold_and_corrected(made):
    result = made(truncate.ANALYSIS, {1: [0.5, 0.6, 0.4], 2: [0.6, 0.8, 0.7], 4: [0.9, 0.9, 0.9]})
    assert [(change.before, change.after) for change in result.changes] == [("1", "2"), ("2", "4")]
    first, second = (change.difference for change in result.changes)
    gains = np.array([0.1, 0.2, 0.3])
    half = 4.302653 * gains.std(ddof=1) * math.sqrt(1 / 3 + 0.5)
    assert first.interval.mean == pytest.approx(0.2)
    assert first.interval.high == pytest.approx(0.2 + half)
    assert first.interval.n == 3
    rows = [row for row in result.rows if row.block == "2"]
    assert [row.change for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert {(row.change_from, row.change_mean, row.change_n) for row in rows} == {("1", first.interval.mean, 3)}
    assert [first, second] == stats.adjusted([first, second])
    assert {(row.change_p, row.change_p_adjusted) for row in rows} == {(first.p_value, first.p_adjusted)}
    assert {row.change_plain_low for row in rows} == {first.interval.plain_low}
    assert all(math.isnan(row.change) for row in result.rows if row.block == "1")


def test_seeds_are_paired_and_those_of_one_fold_count_once(made):
    result = made(truncate.ANALYSIS, {1: [0.5, 0.3] * 3, 2: [0.6, 0.8] * 3}, seeds=(0, 1))
    (change,) = result.changes
    assert change.difference.interval.mean == pytest.approx(0.3)
    assert change.difference.interval.n == 3
    assert [row.change for row in result.rows if row.block == "2"] == pytest.approx([0.1, 0.5] * 3)


@pytest.fixture
def made_of(study, weights_file):
    """Answers of a question from made-up accuracies, a function of plan and fold; runs start from "audioset"."""

    def make(module, accuracy, **options):
        given = study(**options).options
        values = flat(given) | {"weights": "auto", "source": (f"audioset={weights_file}",)}
        chosen = build(module.Options, values)
        runs, question = {}, module.main.work
        for name, arm in question.points(chosen).items():
            runs[name] = [FakeRun(point, accuracy(point.plan, int(point.fold))) for point in arm.points]
            for run in runs[name]:
                run.weights = "audioset" if run.config.plan.letters else ""
        return question.analyse(runs, chosen)

    return make


def features_and_scale(plan, fold):
    """A tenth per block of the source's features, and a twentieth per block of its scale."""
    return 0.2 + 0.1 * plan.start.count("I") + 0.05 * plan.start.count("i") + 0.01 * fold


def test_statistics_tells_features_from_scale(made_of):
    result = made_of(statistics, features_and_scale)
    names = ["random weights", "normal values, audioset's scale", "audioset's values, permuted"]
    assert [*result.analysis.plans] == names
    assert result.places == ["none", "0", "1", "2", "3", "4"]
    gains = {(change.variant, change.before, change.after): change for change in result.changes}
    for name, gain in zip(names, (0.1, 0.05, 0.05), strict=True):
        for pair in (("none", "0"), ("1", "2"), ("3", "4")):
            assert gains[(name, *pair)].difference.interval.mean == pytest.approx(gain)
    assert result.accuracies(variant=names[1], block="none") == pytest.approx([0.46, 0.47, 0.48])


def test_variants_are_compared_with_the_control_at_each_place(made_of):
    result = made_of(statistics, features_and_scale)
    assert {change.variant for change in result.less_control} == {*result.analysis.plans} - {"random weights"}
    gains = {change.after: change.difference.interval.mean for change in result.less_control}
    assert gains == pytest.approx({"none": 0.25, "0": 0.2, "1": 0.15, "2": 0.1, "3": 0.05})  # at 4 they are the same
    rows = result.tables()["statistics_control"]
    assert {(row.control, row.n) for row in rows} == {("random weights", 3)}
    assert {row.block: row.less_control for row in rows} == gains
    assert "audioset's values, permuted less random weights, block 0, paired by fold: 20.0 points" in result.summary()
    assert result.plot().axes[1].get_ylabel().replace("\n", " ") == "less random weights [points]"


def test_a_control_with_another_source_keeps_its_name(made_of):
    result = made_of(norm, lambda plan, fold: 0.9 - 0.2 * ("R" in plan.start))
    assert {change.variant for change in result.less_control} == {"from audioset"}
    assert [change.after for change in result.less_control] == ["none", "0", "1", "2", "3", "4"]
    assert all(change.difference.interval.mean == pytest.approx(0.2) for change in result.less_control)


def test_a_reference_is_compared_in_each_variant_and_is_drawn_once(made_of):
    result = made_of(statistics, features_and_scale)
    last = [row for row in result.rows if row.block == "4" and row.fold == "1"]
    assert len({row.run for row in last}) == 1
    assert {row.variant: row.change for row in last} == pytest.approx(
        {"random weights": 0.1, "normal values, audioset's scale": 0.05, "audioset's values, permuted": 0.05}
    )
    assert {(row.arm, row.change_from) for row in last} == {("pretrained", "3")}
    assert len([row for row in result.rows if row.block == "none" and row.arm == "scratch"]) == 3  # a row per fold
    assert result.accuracies(arm="pretrained") == pytest.approx([0.71, 0.72, 0.73])


def test_reverse_fusion_goes_from_pretrained_to_scratch(made_of):
    result = made_of(reverse, features_and_scale)
    assert result.places == ["0", "1", "2", "3", "4", "none"]
    assert [(change.before, change.after) for change in result.changes][-1] == ("4", "none")
    assert all(change.difference.interval.mean == pytest.approx(-0.1) for change in result.changes)
    assert {(row.block, row.arm) for row in result.rows if row.arm != "block"} == {
        ("0", "pretrained"), ("none", "scratch"),
    }  # fmt: skip
    fig = by_block.draw(result)
    assert [label.get_text() for label in fig.axes[-1].get_xticklabels()] == result.places


def test_surgical_begins_with_the_head_alone(made_of):
    result = made_of(surgical, lambda plan, fold: 0.5 + 0.1 * plan.train.find("A") + 0.01 * fold)
    first = [row for row in result.rows if row.block == "none"]
    assert {(row.arm, row.train) for row in first} == {("block", "FFFFF")}
    assert [change.before for change in result.changes] == ["none", "0", "1", "2", "3"]
    assert {row.arm for row in result.rows if not row.block} == {"pretrained", "scratch"}
    assert all(math.isnan(row.change) for row in first)


def test_norm_compares_with_random_weights(made_of):
    result = made_of(norm, lambda plan, fold: 0.9 - 0.1 * plan.train.count("N") - 0.2 * ("R" in plan.start))
    assert [*result.analysis.plans] == ["from audioset", "from random weights"]
    assert {row.arm for row in result.rows if row.block == "none"} == {"pretrained", "scratch"}
    assert result.accuracies(variant="from random weights", block="4") == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("module", [*COMMANDS.values(), *BY_LETTERS.values()], ids=[*COMMANDS, *BY_LETTERS])
def test_texts_say_the_name_of_the_source(made_of, module):
    result = made_of(module, lambda plan, fold: 0.5 + 0.01 * fold)
    fig = result.plot()
    legend = [text.get_text() for each in fig.legends for text in each.get_texts()]
    words = [fig.get_suptitle(), result.summary(), *legend, *(row.variant for row in result.rows)]
    assert "(source: audioset)" in fig.get_suptitle()
    assert "fully pretrained (source: audioset)" in result.summary()
    assert not any("ImageNet" in each for each in words)
    assert {row.weights for row in result.rows} == {"", "audioset"}


def test_legend_and_title_lie_inside_the_figure(made_of):
    fig = made_of(statistics, features_and_scale).plot()
    fig.draw_without_rendering()
    for box in (fig.legends[0].get_window_extent(), fig._suptitle.get_window_extent()):
        assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1


def test_networks_do_not_mix(made, weights_file):
    networks = ("test_resnet", "resnet18")
    scratch = TransferPlan(pretrained_through=None)
    analysis = dataclasses.replace(
        truncate.ANALYSIS, plans={"scratch": {k: dataclasses.replace(scratch, truncate_after=k) for k in (1, 2)}}
    )
    result = made(analysis, {1: [0.1, 0.2, 0.3, 0.5, 0.5, 0.5], 2: [0.2, 0.4, 0.6, 0.4, 0.4, 0.4]}, backbone=networks)
    assert {change.backbone: round(change.difference.interval.mean, 9) for change in result.changes} == {
        "test_resnet": 0.2,
        "resnet18": -0.1,
    }
    above = [ax for ax in by_block.draw(result).axes if ax.get_title(loc="left") in networks]
    assert [ax.get_title(loc="left") for ax in above] == [*networks]
    assert [np.isclose(drawn(ax), 50).any() for ax in above] == [False, True]
    assert len({ax.get_ylim() for ax in above}) == 1


@pytest.mark.parametrize("command", [*COMMANDS, *BY_LETTERS, "plan_grid"])
def test_all_arms_are_trained_alike(command, options, monkeypatch, capsys):
    """The paper's preset trains longer from scratch, which would be compared with shorter training here."""
    from transferlens.training.sweep import Study

    asked = []

    def stop(self, points):
        asked.extend(points)
        raise ParameterError("far enough")

    monkeypatch.setattr(Study, "gather", stop)
    argv = [each for each in options if not each.startswith("--epochs")]
    module = (COMMANDS | BY_LETTERS).get(command, plan_grid)
    assert module.main([*argv, "--preset", "paper"]) == 2
    assert {point.training.epochs for point in asked} == {70}
    assert len({point.plan for point in asked}) > 4


def test_costs_are_those_of_the_network(made):
    result = made(truncate.ANALYSIS, {2: [0.5] * 3, 4: [0.6] * 3})
    two, four = (next(row for row in result.rows if row.block == block) for block in "24")
    for row, plan in ((two, TransferPlan.truncate(2)), (four, TransferPlan())):
        network = networks.skeleton("test_resnet", n_classes=2, plan=plan)
        assert row.parameters == row.trainable_parameters == sum(p.numel() for p in network.parameters())
    assert two.multiply_adds < four.multiply_adds
    frozen = made(freeze.analysis(), {3: [0.5] * 3}).rows[0]
    network = networks.skeleton("test_resnet", n_classes=2, plan=TransferPlan.freeze(3))
    assert frozen.trainable_parameters == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert frozen.parameters == four.parameters


# ------------------------------------------------------------------------------------------------ figures


def drawn(ax):
    return [y for line in ax.lines for y in np.asarray(line.get_ydata(), float)]


def test_figure_holds_places_bands_and_changes(made):
    result = made(
        fuse.ANALYSIS,
        {None: [0.3, 0.3, 0.3], 2: [0.5, 0.7, 0.6], 4: [0.9, 0.8, 1.0]},
        {"pretrained": [0.9, 0.8, 1.0], "scratch": [0.3, 0.3, 0.3]},
    )
    fig = by_block.draw(result)
    by, change = fig.axes
    assert [label.get_text() for label in change.get_xticklabels()] == ["none", "2", "4"]
    for value in (30, 50, 70, 60, 90, 80, 100):
        assert np.isclose(drawn(by), value).any()
    assert {"fully pretrained", "from scratch", "weight fusion"} <= set(by.get_legend_handles_labels()[1])
    assert np.isclose(drawn(change), 30).any()
    marks = {text.get_text() for text in fig.legends[0].get_texts()}
    assert {"mean and corrected 95 % interval, n = 3 folds", "paired difference: interval excludes 0"} < marks


def test_one_fold_has_no_interval_and_no_mark(made):
    result = made(truncate.ANALYSIS, {1: [0.5], 2: [0.6]}, folds=("1",))
    fig = by_block.draw(result)
    marks = {text.get_text() for text in fig.legends[0].get_texts()}
    assert {"the one fold", "difference, n = 1: no interval"} < marks
    marks = [line for ax in fig.axes for line in ax.lines if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() for line in marks] == ["white"]
    assert "interval" not in by_block.summary(result)


def test_intervals_lie_inside_the_figure(made):
    result = made(truncate.ANALYSIS, {1: [0.2, 0.5, 0.8], 2: [0.9, 0.8, 0.9]})
    for ax in by_block.draw(result).axes:
        assert ax.get_ylim()[0] <= ax.dataLim.y0


def test_truncation_draws_what_it_saves(made):
    axes = by_block.draw(made(truncate.ANALYSIS, {1: [0.5] * 3, 4: [0.6] * 3})).axes
    labels = [ax.get_xlabel() for ax in axes]
    assert "parameters [millions]" in labels
    assert "multiply-adds per clip [millions]" in labels
    assert {text.get_text() for ax in axes for text in ax.texts if text.get_gid() != LEVEL} == {"1", "4"}


# -------------------------------------------------------------------------------------------------- grid


def test_cells_of_the_grid_are_experiments_of_their_own():
    cut, frozen = plan_grid.plans("truncate"), plan_grid.plans("freeze")
    assert (len(cut), len(frozen)) == (18, 21)
    for cells in (cut, frozen):
        assert len(set(cells.values())) == len(cells)
    assert cut[None, 4] == frozen[None, None] == TransferPlan.scratch()
    assert cut[4, 2] == TransferPlan.truncate(2)
    assert cut[2, 4] == frozen[2, None] == TransferPlan.fuse(2)
    assert frozen[4, 3] == TransferPlan.freeze(3)
    assert (3, 2) not in cut
    assert (2, 3) not in frozen


def test_grid_command(options, tmp_path):
    assert plan_grid.main([*options, "--folds", "1", "2"]) == 0
    table = read(tmp_path / "figures" / "plan_grid.csv")
    assert [row["map"] for row in table] == ["truncate"] * 36 + ["freeze"] * 42
    frozen = {(row["pretrained_through"], row["frozen_through"]) for row in table if row["map"] == "freeze"}
    assert len(frozen) == 21
    cell = [row for row in table[:36] if (row["pretrained_through"], row["truncate_after"]) == ("1", "3")]
    values = [float(row["accuracy_last"]) for row in cell]
    assert [float(row["cell_mean"]) for row in cell] == pytest.approx([np.mean(values)] * 2)
    error = np.std(values, ddof=1) / np.sqrt(2)
    assert [float(row["cell_standard_error"]) for row in cell] == pytest.approx([error] * 2)


def test_grid_needs_a_map(capsys):
    assert plan_grid.main(["--maps"]) == 2
    assert "Error parsing --maps: it needs one value or more" in capsys.readouterr().err


def test_one_place_has_no_change_to_draw(made):
    (ax,) = by_block.draw(made(freeze.analysis(), {2: [0.5, 0.6, 0.4]})).axes
    assert ax.get_xlabel() == "last block held fixed (0 is the stem)"


def test_what_is_cut_need_not_fit_the_input():
    plan = TransferPlan(pretrained_through=None, truncate_after=1)
    cut = networks.cost("inception_v3", n_classes=2, plan=plan, input_size=(128, 48))
    assert cut.parameters == sum(
        p.numel() for p in networks.skeleton("inception_v3", n_classes=2, plan=plan).parameters()
    )
    with pytest.raises(ParameterError, match="128x48 is too small"):
        networks.cost("inception_v3", n_classes=2, plan=TransferPlan.scratch(), input_size=(128, 48))


def test_accuracies_are_printed_and_drawn_with_what_they_are_compared_with(made):
    result = made(truncate.ANALYSIS, {1: [0.5, 0.6, 0.4], 4: [0.9, 0.9, 0.9]})
    assert result.summary().splitlines()[-1].endswith(": chance 12.5 %, always the commonest class 37.5 %")
    assert {(row.chance, row.commonest) for row in result.rows} == {(0.125, 0.375)}
    assert {"chance", "commonest"} <= {*result.table().columns}
    ax = result.plot().axes[0]
    assert [text.get_text() for text in ax.texts] == ["chance 12.5\u00a0%", "always the commonest class 37.5\u00a0%"]


def test_one_colour_per_network_where_networks_share_axes(made):
    figure = made(truncate.ANALYSIS, {1: [0.5, 0.6, 0.4], 2: [0.9, 0.9, 0.9]}).plot()
    places, changed, *costs = figure.axes
    colours = {line.get_color() for ax in (changed, *costs) for line in ax.lines if line.get_marker() in ("D", "s")}
    assert len(colours) == 1
    assert colours <= {line.get_color() for line in places.lines}


def test_width_and_titles_are_of_figures_alone(made, tmp_path):
    result = made(truncate.ANALYSIS, {1: [0.5, 0.6, 0.4], 4: [0.9, 0.9, 0.9]})
    usual, narrow = result.write(tmp_path / "usual"), result.write(tmp_path / "narrow", width="8cm", titles=False)
    assert usual[-1].read_bytes() == narrow[-1].read_bytes()
    assert imread(narrow[0]).shape[1] == int(160 * 8 / 2.54)
    with pytest.raises(ParameterError, match="width='8' must be a width of 5 to 60 cm with its unit, such as 8cm"):
        result.write(tmp_path / "wrong", width="8")
    assert not (tmp_path / "wrong").exists()


def test_a_width_without_unit_is_one_line(capsys):
    assert truncate.main(["--figure-width", "8"]) == 2
    assert "figure_width='8' must be a width of 5 to 60 cm with its unit, such as 8cm" in capsys.readouterr().err
