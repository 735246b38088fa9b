"""Transfer plans: the table of experiments, their words, errors and warnings, and the command line."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from transferlens import cli
from transferlens.models import plan
from transferlens.models.plan import TransferPlan
from transferlens.options import PlanOptions
from transferlens.util.errors import ParameterError, warn_once

TABLE = [
    (TransferPlan.finetune(), (4, None, 4), "p4-none-4"),
    (TransferPlan.scratch(), (None, None, 4), "pnone-none-4"),
    (TransferPlan.fuse(2), (2, None, 4), "p2-none-4"),
    (TransferPlan.freeze(3), (4, 3, 4), "p4-3-4"),
    (TransferPlan.truncate(1), (4, None, 1), "p4-none-1"),
    (TransferPlan.probe(2), (4, 2, 2), "p4-2-2"),
]


@pytest.fixture(autouse=True)
def warn_again():
    warn_once.cache_clear()


@pytest.mark.parametrize(("experiment", "numbers", "words"), TABLE, ids=[words for *_, words in TABLE])
def test_each_experiment_is_three_numbers(experiment, numbers, words):
    assert (experiment.pretrained_through, experiment.frozen_through, experiment.truncate_after) == numbers
    assert experiment.words == str(experiment) == words
    assert experiment == TransferPlan(*numbers)


def test_through_includes_the_block_it_names_and_after_keeps_it():
    experiment = TransferPlan(pretrained_through=1, frozen_through=0, truncate_after=3)
    assert experiment.blocks == (0, 1, 2, 3)
    assert [experiment.is_pretrained(block) for block in plan.BLOCKS] == [True, True, False, False, False]
    assert [experiment.is_frozen(block) for block in plan.BLOCKS] == [True, False, False, False, False]
    assert not experiment.is_pretrained("head")


def test_a_cut_block_is_neither_pretrained_nor_frozen():
    experiment = TransferPlan.probe(2)
    assert [experiment.is_pretrained(block) for block in plan.BLOCKS] == [True, True, True, False, False]
    assert [experiment.is_frozen(block) for block in plan.BLOCKS] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (TransferPlan(2, None, 2), TransferPlan(4, None, 2)),
        (TransferPlan(3, 1, 2), TransferPlan(4, 1, 2)),
        (TransferPlan(1, None, 2), TransferPlan(1, None, 2)),
        (TransferPlan(4, None, 4, "updating"), TransferPlan(4, None, 4, "fixed")),
        (TransferPlan(4, 2, 4, "updating"), TransferPlan(4, 2, 4, "updating")),
    ],
)
def test_equal_experiments_have_one_canonical_plan_and_equal_words(given, canonical):
    assert given == canonical
    assert (repr(given), given.words) == (repr(canonical), canonical.words)


def test_words_are_distinct_for_all_canonical_plans():
    numbers = [None, *plan.BLOCKS]
    plans = {
        TransferPlan(p, f, t, bn)
        for p in numbers
        for f in numbers
        for t in plan.BLOCKS[1:]
        for bn in ("fixed", "updating")
        if f is None or f <= t
    }
    assert len({experiment.words for experiment in plans}) == len(plans)


def test_frozen_batchnorm_that_updates_is_in_the_words():
    assert TransferPlan.freeze(2, bn="updating").words == "p4-2-4-updating"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"pretrained_through": 7}, r"^pretrained_through=7 must be none or one of 0, 1, 2, 3, 4$"),
        ({"pretrained_through": -1}, r"pretrained_through=-1 must be none or one of"),
        ({"pretrained_through": "4"}, r"pretrained_through='4' must be none or one of"),
        ({"pretrained_through": True}, r"pretrained_through=True must be none or one of"),
        ({"frozen_through": 2.0}, r"frozen_through=2.0 must be none or one of"),
        ({"truncate_after": 0}, r"truncate_after=0 must be one of 1, 2, 3, 4: a stem alone has no block"),
        ({"truncate_after": None}, r"^truncate_after=None must be one of 1, 2, 3, 4$"),
        ({"frozen_through": 3, "truncate_after": 2}, r"frozen_through=3 must not exceed truncate_after=2"),
        ({"bn": "eval"}, r"bn='eval' must be 'fixed' or 'updating'"),
    ],
)
def test_a_value_that_is_not_allowed_raises_in_one_line(numbers, message):
    with pytest.raises(ParameterError, match=message) as caught:
        TransferPlan(**numbers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", [5, -1, None, "head"])
def test_only_blocks_0_to_4_are_frozen_or_not(block):
    with pytest.raises(ParameterError, match="block=.* must be one of 0, 1, 2, 3, 4"):
        TransferPlan().is_frozen(block)


def test_numpy_integers_from_hdf5_become_ints():
    experiment = TransferPlan(np.int64(4), np.int32(2), np.int64(3))
    assert experiment == TransferPlan(4, 2, 3)
    numbers = (experiment.pretrained_through, experiment.frozen_through, experiment.truncate_after)
    assert {*map(type, numbers)} == {int}


def test_freezing_random_blocks_warns_once(caplog):
    with caplog.at_level(logging.WARNING):
        TransferPlan(pretrained_through=0, frozen_through=2)  # as for a run that is read
        assert not caplog.records
        TransferPlan(pretrained_through=0, frozen_through=2).warn()
        TransferPlan(pretrained_through=0, frozen_through=2).warn()
    assert [record.getMessage() for record in caplog.records] == [
        "frozen_through=2 with pretrained_through=0: the blocks between are frozen at random weights "
        "(meant for a random-features control)"
    ]


@pytest.mark.parametrize("numbers", [(4, 4, 4), (2, 2, 4), (2, 2, 2)])
def test_freezing_pretrained_blocks_does_not_warn(numbers, caplog):
    with caplog.at_level(logging.WARNING):
        TransferPlan(*numbers).warn()
    assert not caplog.records


def parse(*argv):
    return cli.parse(PlanOptions, argv, prog="train").plan()


@pytest.mark.parametrize(
    ("argv", "experiment"),
    [
        ((), TransferPlan.finetune()),
        (("--pretrained-through", "none"), TransferPlan.scratch()),
        (("--pretrained-through", "None"), TransferPlan.scratch()),
        (("--pretrained-through", "0", "--frozen-through", "none"), TransferPlan.fuse(0)),
        (("--frozen-through", "2", "--truncate-after", "2"), TransferPlan.probe(2)),
        (("--frozen-through", "1", "--bn", "updating"), TransferPlan.freeze(1, bn="updating")),
    ],
)
def test_command_line(argv, experiment):
    assert parse(*argv) == experiment


def test_none_is_a_word_in_python_too():
    assert PlanOptions(pretrained_through="none", frozen_through="None").plan() == TransferPlan.scratch()


@pytest.mark.parametrize("argv", [("--pretrained-through", "7"), ("--truncate-after", "0"), ("--frozen-through", "-1")])
def test_a_number_that_is_not_a_block_is_one_line_and_exit_code_2(argv, capsys):
    assert cli.guarded(lambda: parse(*argv) and 0) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {argv[0][2:].replace('-', '_')}={argv[1]} must be ")


@pytest.mark.parametrize("argv", [("--pretrained-through", "all"), ("--bn", "eval"), ("--truncate-after", "x")])
def test_a_word_that_is_not_allowed_is_one_line(argv, capsys):
    with pytest.raises(ParameterError, match=argv[0]):
        parse(*argv)
    assert capsys.readouterr().err == ""


def test_help_names_the_blocks_and_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--pretrained-through {none,0,1,2,3,4}" in text
    assert "Default: none, all blocks are trained." in text
    assert "0 is the stem" in text


def test_plans_and_backbones_are_imported_without_torch():
    code = (
        "import sys, transferlens.models.plan, transferlens.backbones; "
        "sys.exit(any(name in sys.modules for name in ('torch._C', 'timm.models', 'torch.nn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pretraining_a_block_that_is_cut_warns_once(caplog):
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        TransferPlan(3, None, 2)
        TransferPlan(3, None, 2)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "a block that is cut cannot be pretrained; this is the same as pretrained_through=4" in message


@pytest.mark.parametrize("numbers", [(4, None, 2), (2, None, 2), (1, None, 2), (None, None, 2)])
def test_cutting_blocks_that_are_not_pretrained_does_not_warn(numbers, caplog):
    with caplog.at_level(logging.WARNING):
        TransferPlan(*numbers)
    assert not caplog.records
