"""The five answers at the top of RESULTS.md: for each data set a verdict, the number that it follows from, its figure.

A verdict follows from intervals alone. Where a control, the same question with permuted labels, shows a difference to
the same side, it is withdrawn; the first two questions have such a control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from analyses.numbers import FIRST, Tables, changes, count, gain, hundred, judge, per_clip, plain, short, stored
from transferlens.measures.stats import Interval

WITHDRAWN = "withdrawn, as permuted labels show it too"
UNKNOWN, MIXED = "it cannot be told", "on some networks, and on others it harms"
YES, NO, PARTLY_NO = "yes", "no, it harms", "it harms on some networks, and on others it cannot be told"


@dataclass(frozen=True)
class Answer:
    """The answer of one data set: a verdict in words, the number behind it, and the link to its figure."""

    verdict: str
    number: str
    link: str


@dataclass(frozen=True)
class Answers:
    """A question and its answers, one per data set."""

    question: str
    given: tuple[Answer, ...]

    @property
    def alike(self) -> str:
        """Whether the data sets that were asked have the same verdict, in words; empty if only one was asked."""
        verdicts = [each.verdict for each in self.given if each.link]
        if len(verdicts) < 2:
            return ""
        return "yes" if len({*verdicts}) == 1 else "no" if {YES, NO} <= {*verdicts} else "it cannot be told"


def _gains(tables: Tables) -> dict[str, Interval]:
    """Return the differences between pretrained and from scratch, by network."""
    tuned, scratch = (tables.rows(FIRST, init=init) for init in ("pretrained", "scratch"))
    networks = tables.column(FIRST, "backbone")
    return {network: gain([row for row in tuned if row.backbone == network], scratch) for network in networks}


def _pretraining(tables: Tables, control: Tables | None) -> Answer:
    gains = _gains(tables)
    verdict = _kept(_verdict(gains.values()), _gains(control).values() if control else ())
    number = (
        f"{hundred(gains[tables.first])} points for {short(tables.first)}, above 0 on {count(gains.values())} networks"
    )
    return Answer(verdict, number, f"{tables.link}/pretrained_vs_scratch.png")


def _block(tables: Tables, control: Tables | None) -> Answer:
    two, three, four = (changes(tables, "truncate", *blocks) for blocks in (("1", "2"), ("2", "3"), ("3", "4")))
    verdict = _kept(_verdict(three.values()), changes(control, "truncate", "2", "3").values() if control else ())
    first = tables.first
    number = (
        f"{hundred(three[first])} points for {short(first)}, above 0 on {count(three.values())} networks; before it, "
        f"Block 2 adds {hundred(two[first])}, and behind it Block 4 {hundred(four[first])}"
    )
    return Answer(verdict, number, f"{tables.link}/truncate.png")


def _input(tables: Tables, control: Tables | None) -> Answer:
    usual, *others = tables.column("input_form", "arm")
    gains = {arm: gain(tables.rows("input_form", arm=arm), tables.rows("input_form", arm=usual)) for arm in others}
    best = max(gains, key=lambda arm: gains[arm].mean)
    better = [arm for arm in gains if gains[arm].low > 0]
    verdict = f"no, better: {', '.join(better)}" if better else "yes, as far as can be told"
    number = f"the best of {len(others)} other forms, {best}, differs by {hundred(gains[best])} points (not corrected)"
    return Answer(verdict, number, f"{tables.link}/input_form.png")


def _ensemble(tables: Tables, control: Tables | None) -> Answer:
    pretrained = [row for row in tables.rows("ensemble", fold="") if row.ensemble.endswith("pretrained")]
    (seeds, *_) = [row for row in pretrained if row.ensemble.startswith(tables.first)]
    gains = {row.ensemble: stored(row, "gain") for row in pretrained}
    number = f"{hundred(gains[seeds.ensemble])} points for {int(seeds.n_members)} seeds of {short(tables.first)}"
    if (largest := max(pretrained, key=lambda row: row.n_members)) is not seeds:
        number += f"; {hundred(gains[largest.ensemble])} for all {int(largest.n_members)} networks"
    return Answer(judge(gains[seeds.ensemble], YES, NO, UNKNOWN), number, f"{tables.link}/ensemble.png")


def _look(tables: Tables, control: Tables | None) -> Answer:
    trained, before = (tables.rows("saliency", network=n) for n in ("pretrained", "pretrained, before training"))
    over_chance = per_clip(trained, "energy_correlation", trained, "energy_correlation_chance")
    by_training = per_clip(trained, "energy_correlation", before, "energy_correlation")
    where = judge(over_chance, "at loud cells", "past loud cells", "at no kind of cell that can be told")
    same = "as before training, as far as can be told"
    more = judge(by_training, "more than before training", "less than before training", same)
    verdict = f"{where}, {more}" if over_chance.low > 0 else where
    told = [plain(each.mean, each.low, each.high) for each in (over_chance, by_training)]
    number = f"rank correlation with energy differs by {told[0]} from chance, by {told[1]} from before training"
    return Answer(verdict, number, f"{tables.link}/saliency_summary.png")


def _verdict(intervals: Iterable[Interval]) -> str:
    """Return the verdict of all networks, or that they differ."""
    intervals = list(intervals)
    verdicts = {judge(each, YES, NO, UNKNOWN) for each in intervals}
    if len(verdicts) == 1:
        return verdicts.pop()
    if NO in verdicts:
        return MIXED if YES in verdicts else PARTLY_NO
    return f"on some networks, {count(intervals)}"


def _kept(verdict: str, controls: Iterable[Interval]) -> str:
    """Return a verdict unless a control shows a difference to the same side."""
    controls = list(controls)
    above, below = any(each.low > 0 for each in controls), any(each.high < 0 for each in controls)
    shown = {UNKNOWN: False, NO: below, PARTLY_NO: below, MIXED: above or below}.get(verdict, above)
    return WITHDRAWN if shown else verdict


# The questions, how each is answered, and the tables that the answer needs.
QUESTIONS: tuple[tuple[str, Callable[[Tables, Tables | None], Answer], tuple[str, ...]], ...] = (
    ("Does pretraining on images help?", _pretraining, (FIRST,)),
    ("Does Block 3 add to the blocks before it?", _block, ("truncate",)),
    ("Do plain log-mel features suffice?", _input, ("input_form",)),
    ("Does an ensemble help?", _ensemble, ("ensemble",)),
    ("What do the networks look at?", _look, ("saliency",)),
)


def answers(sets: Sequence[Tables], controls: Sequence[Tables | None]) -> list[Answers]:
    """Return the five questions with the answers of the data sets, each with its control, or None."""
    given = []
    for question, answer, needed in QUESTIONS:
        pairs = zip(sets, controls, strict=True)
        own = [answer(*pair) if all(map(pair[0].has, needed)) else Answer("not asked", "", "") for pair in pairs]
        given.append(Answers(question, tuple(own)))
    return given
