"""Transfer plans: the table of experiments, their words, errors and warnings, and the command line."""

import itertools
import logging
import subprocess
import sys

import numpy as np
import pytest

from transferlens import cli
from transferlens.features.logmel import FeatureSettings
from transferlens.models import plan
from transferlens.models.plan import TransferPlan
from transferlens.options import PlanOptions
from transferlens.store.config import RunConfig, Training
from transferlens.training.sweep import SweepOptions
from transferlens.util.errors import ParameterError

# Numbers of a plan, its words, and the hash in the id of its run, as they were before plans had letters.
RECORDED = [
    ((None, None, 4, "fixed"), "pnone-none-4", "6be13519"),
    ((None, None, 2, "fixed"), "pnone-none-2", "5e0a299f"),
    ((None, 2, 4, "fixed"), "pnone-2-4", "882bfd5f"),
    ((None, 3, 3, "fixed"), "pnone-3-3", "3feee04f"),
    ((None, 1, 3, "updating"), "pnone-1-3-updating", "593580a5"),
    ((0, None, 4, "fixed"), "p0-none-4", "d976ec22"),
    ((1, None, 4, "fixed"), "p1-none-4", "33c0e723"),
    ((1, 1, 4, "fixed"), "p1-1-4", "1a669dbb"),
    ((2, None, 3, "fixed"), "p2-none-3", "61d4bb76"),
    ((2, 2, 2, "fixed"), "p4-2-2", "2c09f67f"),
    ((3, 1, 4, "updating"), "p3-1-4-updating", "291e921c"),
    ((3, None, 4, "fixed"), "p3-none-4", "308294a6"),
    ((4, None, 4, "fixed"), "p4-none-4", "836c8238"),
    ((4, None, 1, "fixed"), "p4-none-1", "66f0707a"),
    ((4, None, 3, "fixed"), "p4-none-3", "2c3e2fef"),
    ((4, 0, 4, "fixed"), "p4-0-4", "e454bb7a"),
    ((4, 2, 4, "fixed"), "p4-2-4", "89cc1ce2"),
    ((4, 2, 4, "updating"), "p4-2-4-updating", "c8d34b7d"),
    ((4, 2, 2, "fixed"), "p4-2-2", "2c09f67f"),
    ((4, 4, 4, "updating"), "p4-4-4-updating", "f9ec149f"),
]
TABLE = [
    (TransferPlan.finetune(), (4, None, 4), "p4-none-4"),
    (TransferPlan.scratch(), (None, None, 4), "pnone-none-4"),
    (TransferPlan.fuse(2), (2, None, 4), "p2-none-4"),
    (TransferPlan.freeze(3), (4, 3, 4), "p4-3-4"),
    (TransferPlan.truncate(1), (4, None, 1), "p4-none-1"),
    (TransferPlan.probe(2), (4, 2, 2), "p4-2-2"),
]


@pytest.mark.parametrize(("experiment", "numbers", "words"), TABLE, ids=[words for *_, words in TABLE])
def test_each_experiment_is_three_numbers(experiment, numbers, words):
    assert (experiment.pretrained_through, experiment.frozen_through, experiment.truncate_after) == numbers
    assert experiment.words == str(experiment) == words
    assert experiment == TransferPlan(*numbers)


@pytest.mark.parametrize(("numbers", "words", "digits"), RECORDED, ids=[words for _, words, _ in RECORDED])
def test_ids_of_runs_are_what_they_were(numbers, words, digits):
    experiment = TransferPlan(*numbers)
    weights = "cd" * 32 if numbers[0] is not None else ""
    training = Training(epochs=3)
    config = RunConfig("esc10", "ab" * 32, FeatureSettings(44100), "1", "resnet18", experiment, weights, 0, training)
    assert config.id == f"esc10-f1-resnet18-{words}-s0-{digits}"
    letters = TransferPlan(start=experiment.start, train=experiment.train, bn=experiment.bn)
    assert letters == experiment
    assert RunConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("letters", "experiment"),
    [
        ({"start": "IIIII", "train": "AAAAA"}, TransferPlan.finetune()),
        ({"start": "RRRRR"}, TransferPlan.scratch()),
        ({"start": "IIRRR"}, TransferPlan.fuse(1)),
        ({"train": "FFFAA", "bn": "updating"}, TransferPlan.freeze(2, bn="updating")),
        ({"start": "III--"}, TransferPlan.truncate(2)),
        ({"train": "AAA--"}, TransferPlan.truncate(2)),
        ({"start": "IIIII", "truncate_after": 2}, TransferPlan.truncate(2)),
        ({"start": "III--", "train": "FFF--"}, TransferPlan.probe(2)),
        ({"start": "IIiii", "statistics": "permuted"}, TransferPlan.fuse(1, behind="permuted")),
        ({"start": "RRIII"}, TransferPlan.reverse(2)),
        ({"start": "RRRRR"}, TransferPlan.reverse(None)),
        ({"start": "IIIII"}, TransferPlan.reverse(0)),
        ({"train": "FFAFF"}, TransferPlan.surgical(2)),
        ({"train": "NNNAA"}, TransferPlan.norm(2)),
        ({"start": "RRRRR", "train": "NNNNN"}, TransferPlan.norm(4, pretrained=False)),
        ({"start": "IRRRR", "statistics": "permuted", "bn": "updating"}, TransferPlan.fuse(0)),
    ],
)
def test_letters_say_the_same_as_names(letters, experiment):
    assert TransferPlan(**letters) == experiment
    assert TransferPlan(**experiment.flat()) == experiment


def test_words_are_distinct_for_plans_of_letters():
    starts = map("".join, itertools.product("IRi", repeat=3))
    plans = {
        TransferPlan(start=f"{start}RR", train=train, statistics=how)
        for start in starts
        for train in ("AAAAA", "NAAAA", "FAAAA", "AFAAA")
        for how in ("normal", "permuted")
    }
    assert len({experiment.words for experiment in plans}) == len(plans)


def test_plans_that_numbers_cannot_express_say_so():
    experiment = TransferPlan.reverse(2)
    assert experiment.numbers is None
    assert repr(experiment) == "TransferPlan(start='RRIII', train='AAAAA')"
    with pytest.raises(
        ParameterError, match="the plan RRIII-AAAAA cannot be given by pretrained_through: use its start"
    ):
        experiment.pretrained_through  # noqa: B018


def test_sources_are_named_in_the_order_of_blocks():
    experiment = TransferPlan(start="BRbAA")
    assert experiment.letters == ("B", "A")
    assert experiment.renamed({"B": "I", "A": "J"}) == TransferPlan(start="IRiJJ")


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
        ({"statistics": "uniform"}, r"statistics='uniform' must be 'normal' or 'permuted'"),
        ({"start": "IIRR"}, r"start='IIRR' must have five letters, one per block: R \(random\), I or another"),
        ({"start": "I----"}, r"start='I----' must have five letters"),
        ({"start": "II-RR"}, r"start='II-RR' must have five letters"),
        ({"start": "rRRRR"}, r"start='rRRRR' must have .*: r would be the statistics of nothing"),
        ({"start": 4}, r"start=4 must have five letters"),
        ({"train": "NNBBB"}, r"train='NNBBB' must have five letters, one per block: A \(all is trained\)"),
        ({"start": "IIRRR", "pretrained_through": 1}, r"start='IIRRR' and pretrained_through=1: give only one"),
        ({"train": "FFAAA", "frozen_through": 1}, r"train='FFAAA' and frozen_through=1: give only one"),
        ({"start": "III--", "train": "AAAA-"}, r"train='AAAA-' keeps Block 3 as the last, but another option Block 2"),
        ({"start": "III--", "frozen_through": 3}, r"frozen_through=3 must not exceed truncate_after=2"),
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
        "p0-2-4: blocks 1 2 are frozen at random weights (meant for a random-features control)"
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
        (("--start", "IIRRR", "--train", "NNAAA"), TransferPlan(start="IIRRR", train="NNAAA")),
        (("--start", "iiiii", "--statistics", "permuted"), TransferPlan(start="iiiii", statistics="permuted")),
    ],
)
def test_command_line(argv, experiment):
    assert parse(*argv) == experiment


@pytest.mark.parametrize(
    ("options", "sweep", "message"),
    [
        ({"start": "RRRRR"}, {"source": ("a=auto",)}, "source='a=auto' has no effect, as all blocks start from random"),
        ({"start": "RRRRR"}, {"weights": "w.pth"}, "weights='w.pth' has no effect"),
        ({"statistics": "permuted"}, {}, "statistics='permuted' needs a block that starts from statistics"),
        ({"bn": "updating"}, {}, "bn='updating' needs frozen blocks"),
    ],
)
def test_options_without_effect_are_refused(options, sweep, message):
    with pytest.raises(ParameterError, match=message):
        PlanOptions(**options).plan(SweepOptions(**sweep))


def test_none_is_a_word_in_python_too():
    assert PlanOptions(pretrained_through="none", frozen_through="None").plan() == TransferPlan.scratch()


@pytest.mark.parametrize("argv", [("--pretrained-through", "7"), ("--truncate-after", "0"), ("--frozen-through", "-1")])
def test_a_number_that_is_not_a_block_is_one_line_and_exit_code_2(argv, capsys):
    assert cli.guarded(lambda: parse(*argv) and 0) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {argv[0][2:].replace('-', '_')}={argv[1]} must be ")


@pytest.mark.parametrize("argv", [("--pretrained-through", "all"), ("--bn", "eval"), ("--truncate-after", "x")])
def test_a_word_that_is_not_allowed_is_one_line(argv, capsys):
    with pytest.raises(ParameterError, match=argv[0].strip("-").replace("-", "[-_]")):
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


@pytest.mark.parametrize(
    ("plan", "title"),
    [
        (TransferPlan.finetune(), "pretrained"),
        (TransferPlan.scratch(), "from scratch"),
        (TransferPlan.fuse(2), "pretrained through Block 2"),
        (TransferPlan.freeze(2, bn="updating"), "frozen through Block 2, BatchNorm updating"),
        (TransferPlan(None, truncate_after=2), "from scratch, truncated after Block 2"),
        (TransferPlan.probe(3), "linear probe of Block 3"),
        (TransferPlan(None, 3, 3), "linear probe of Block 3, random weights"),
        (TransferPlan.reverse(2), "Blocks 0 to 1 random, Blocks 2 to 4 pretrained"),
        (TransferPlan.surgical(2), "all blocks pretrained, only Block 2 trained"),
        (TransferPlan.norm(1), "all blocks pretrained, only normalisation layers of Blocks 0 to 1 trained"),
        (
            TransferPlan.fuse(0, behind="permuted"),
            "Block 0 pretrained, Blocks 1 to 4 permuted values of the pretrained",
        ),
        (TransferPlan(start="IJ---", train="AF---"), "Block 0 pretrained, Block 1 from source J, only Block 0 trained, "
         "truncated after Block 1"),
    ],
)  # fmt: skip
def test_titles_are_words(plan, title):
    assert plan.title == title


def test_no_two_plans_have_one_title():
    letters = [map("".join, itertools.product(word, repeat=3)) for word in ("IRiJ", "ANF")]
    options = itertools.product(*letters, ("fixed", "updating"), ("normal", "permuted"))
    plans = {
        TransferPlan(start=f"{start}--", train=f"{train}--", bn=bn, statistics=statistics)
        for start, train, bn, statistics in options
    }
    assert len({plan.title for plan in plans}) == len(plans) > 2000
