"""The anomaly of fusion: its arms, the choice of the learning rate, and the comparison with what is trained alike."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from analyses import rq2_anomaly as anomaly
from transferlens.models.plan import TransferPlan
from transferlens.util.fields import build, flat

GIVEN = {"rates": (1e-3, 1e-2), "longer": 2}
# Accuracies by arm, the same gain in all folds.
LEVELS = {"RRRRR": 0.6, "IRRRR": 0.5, "iRRRR normal": 0.65, "iRRRR permuted": 0.55, "IRRRR NAAAA": 0.5}


def options_of(study, **changes):
    return build(anomaly.Options, flat(study(**changes).options) | GIVEN)


def made_run(point, accuracy, *, inner=0.5):
    losses = np.linspace(1, 0.1, point.training.epochs)
    return SimpleNamespace(
        config=point,
        accuracy_last=accuracy,
        accuracy_best=accuracy,
        n_train=16,
        labels=np.zeros(8),
        n_recordings=0,
        weights="audioset" if point.plan.letters else "",
        cost=point.cost(2),
        history={
            "seconds": np.ones(1),
            "train_loss": losses,
            "heldout_loss": 2 * losses,
            "inner_accuracy": np.array([0, inner]),
        },
    )


@pytest.fixture
def runs(study):
    """Runs of every arm: the inner fold prefers the second rate on fold 1 only, which is worse there."""
    made = {}
    for (name, way, rate), arm in anomaly.points(options_of(study)).items():
        level = LEVELS.get(name, 0.4) + (0.2 if way == anomaly.LONGER else 0) - (0.1 if rate == 1e-2 else 0)
        made[name, way, rate] = [
            made_run(
                point,
                level + 0.02 * int(point.fold) + (0.01 * int(point.fold) if name != "RRRRR" else 0),
                inner=0.9 if (rate == 1e-2) == (point.fold == "1") else 0.8,
            )
            for point in arm.points
        ]
    return made


def test_arms_are_trained_alike_but_for_what_they_ask(study):
    arms = anomaly.points(options_of(study))
    usual = {name: arm.points[0] for (name, way, _), arm in arms.items() if not way}
    assert {name: (point.plan.start, point.plan.train, point.plan.statistics) for name, point in usual.items()} == {
        "RRRRR": ("RRRRR", "AAAAA", "normal"),
        "IRRRR": ("IRRRR", "AAAAA", "normal"),
        "iRRRR normal": ("iRRRR", "AAAAA", "normal"),
        "iRRRR permuted": ("iRRRR", "AAAAA", "permuted"),
        "IRRRR NAAAA": ("IRRRR", "NAAAA", "normal"),
        "IRRRR FAAAA": ("IRRRR", "FAAAA", "normal"),
    }
    assert len({point.training for point in usual.values()}) == 1
    assert {arm.points[0].training.epochs for (_, way, _), arm in arms.items() if way == anomaly.LONGER} == {4}
    nested = {key[2]: {(p.training.lr, bool(p.inner_fold)) for p in arm.points} for key, arm in arms.items() if key[2]}
    assert nested == {1e-3: {(1e-3, True)}, 1e-2: {(1e-2, True)}}
    # Runs of fusion and from scratch are read, not trained again.
    of_fusion = {point.id for plan in (TransferPlan.fuse(0), TransferPlan.scratch()) for point in study().points(plan)}
    assert of_fusion == {point.id for name in anomaly.PAIR for point in arms[name, "", None].points}


def test_the_inner_fold_chooses_the_rate_and_the_held_out_fold_reports(runs):
    result = anomaly.analyse(runs)
    assert len(result.rates) == 12
    chosen = {row.fold: row for row in result.rows if row.arm == "IRRRR, rate chosen"}
    assert {fold: row.lr for fold, row in chosen.items()} == {"1": 1e-2, "2": 1e-3, "3": 1e-3}
    assert chosen["1"].accuracy_last == pytest.approx(0.4 + 0.03)
    assert "chosen on the inner fold: 0.01 (fold 1, seed 0), 0.001 (fold 2" in anomaly.summary(result)


def test_of_equal_rates_the_first_is_chosen(runs):
    for runs_of_arm in runs.values():
        for run in runs_of_arm:
            run.history["inner_accuracy"] = np.array([0, 0.5])
    chosen = [row for row in anomaly.analyse(runs).rows if row.arm.endswith("chosen")]
    assert {row.lr for row in chosen} == {1e-3}


def test_arms_are_compared_with_random_weights_that_were_trained_alike(runs):
    result = anomaly.analyse(runs)
    references = {row.arm: row.reference for row in result.rows}
    assert references["IRRRR NAAAA"] == "RRRRR"
    assert references["IRRRR, longer"] == "RRRRR, longer"
    assert references["IRRRR, rate chosen"] == "RRRRR, rate chosen"
    means = {arm: difference.interval.mean for arm, difference in result.differences.items()}
    assert set(means) == set(references) - set(references.values())
    assert [means["IRRRR"], means["IRRRR, longer"]] == pytest.approx([-0.1 + 0.02] * 2)
    assert means["iRRRR normal"] == pytest.approx(0.05 + 0.02)
    (value,) = {row.less_reference for row in result.rows if row.arm == "IRRRR"}
    assert value == means["IRRRR"]
    assert all(difference.p_adjusted >= difference.p_value for difference in result.differences.values())


def test_files_hold_what_is_drawn(runs, tmp_path):
    result = anomaly.analyse(runs)
    assert sorted(path.name for path in result.write(tmp_path)) == [
        "anomaly.csv", "anomaly.pdf", "anomaly.png", "anomaly_losses.csv", "anomaly_rates.csv",
    ]  # fmt: skip
    losses = list(csv.DictReader((tmp_path / "anomaly_losses.csv").open()))
    assert {row["arm"] for row in losses} == {"IRRRR", "RRRRR"}
    assert len(losses) == 2 * 3 * 2
    above, train, below, heldout = result.plot().axes
    assert [label.get_text() for label in below.get_xticklabels()][:2] == ["RRRRR", "IRRRR"]
    assert [ax.get_ylabel() for ax in (train, heldout)] == ["training loss", "held-out loss"]
    assert len(train.lines) == len(heldout.lines) == 2 * (3 + 1)
    assert "(source: audioset)" in result.plot().get_suptitle()
    assert above.get_ylabel() == "held-out accuracy [%]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rates", "0"], "rates=0.0 must be greater than 0"),
        (["--rates"], "Error parsing --rates: it needs one value or more"),
        (["--longer", "1"], "longer=1 must be at least 2"),
        (["--backbone", "test_resnet", "resnet18"], "backbone='test_resnet resnet18' must name one here"),
    ],
)
def test_bad_input_is_one_line(argv, message, options, capsys):
    given = [each for each in options if not each.startswith(argv[0])]
    assert anomaly.main([*given, *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow(20)
def test_command(options, tmp_path, capsys):
    assert anomaly.main([*options, "--folds", "1", "2", "--rates", "1e-3"]) == 0
    assert "IRRRR, longer - RRRRR, longer, paired by fold" in capsys.readouterr().out
    assert (tmp_path / "figures" / "anomaly.png").stat().st_size > 0
