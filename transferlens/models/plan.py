r"""The transfer plan: where each block starts, what of it is trained, and where the backbone is cut.

A plan has one letter per block of a backbone (0 = stem, 1..4 = Block 1..Block 4) for its start and one for its
training. No other module distinguishes "freezing experiments" from "fusion experiments".

=====  =================================================  =====  =====================================
start  the block begins with                              train  what of the block is trained
=====  =================================================  =====  =====================================
I      the weights of the source (ImageNet's by default)  A      all of it
R      random weights                                     N      its normalisation layers only
i      the statistics of the source: no weight of it      F      nothing, it is frozen
\-     nothing, it is cut                                 \-     nothing, it is cut
=====  =================================================  =====  =====================================

Several sources have a capital letter each, all but R, and the small letter for their statistics. Most experiments are
three numbers, which are the short form of such letters:

==============================  ==================  ==============  ==============  ===========  ===========
experiment                      pretrained_through  frozen_through  truncate_after  start        train
==============================  ==================  ==============  ==============  ===========  ===========
fine-tune the ImageNet model    4                   none            4               IIIII        AAAAA
train from scratch              none                none            4               RRRRR        AAAAA
weight fusion at 1              1                   none            4               IIRRR        AAAAA
freezing at 1                   4                   1               4               IIIII        FFAAA
truncation at 2                 4                   none            2               III--        AAA--
linear probe of Block 2         4                   2               2               III--        FFF--
==============================  ==================  ==============  ==============  ===========  ===========

``through`` includes the block that it names; ``truncate_after`` keeps the block that it names and cuts those that
follow.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transferlens.util.errors import ParameterError, warn_once

BLOCKS = (0, 1, 2, 3, 4)  # the stem and the four blocks of every backbone
LAST = BLOCKS[-1]
THROUGH = (None, *BLOCKS)  # the last block of a number of first blocks; None: there are none
RANDOM, CUT = "R", "-"
SOURCES = "IJKLM"  # the letters of sources in the plan of a run, in the order in which its blocks name them
NUMBERS = ("pretrained_through", "frozen_through", "truncate_after")
BatchNorm = Literal["fixed", "updating"]
Statistics = Literal["normal", "permuted"]


@dataclass(frozen=True, init=False, repr=False)
class TransferPlan:
    """Which blocks start from the weights of a source, what of them is trained, and where the network is cut.

    Plans that are the same experiment are equal, however they were given: letters and numbers, or numbers that differ
    only for blocks that are cut. `bn` is "fixed" if no block is frozen, and `statistics` "normal" if none is used.

    Parameters
    ----------
    pretrained_through : int in 0..4 or None
        Blocks 0 to this one start from the weights of the source; later blocks are entirely randomly initialised,
        normalisation layers too. None: train from scratch.
    frozen_through : int in 0..truncate_after or None
        Blocks 0 to this one are not trained. None: all blocks are trained.
    truncate_after : int in 1..4
        The last block that is kept; the head follows it directly.
    bn : {"fixed", "updating"}
        Whether the BatchNorm statistics of frozen blocks are frozen too, or are updated by the new data.
    start : str of five letters, optional
        Instead of `pretrained_through`: for each block R (random), I or another capital letter (the weights of a
        source), its small letter (the statistics of that source), or - for blocks that are cut.
    train : str of five letters, optional
        Instead of `frozen_through`: for each block A (all of it is trained), N (its normalisation layers only) or F
        (frozen), or - for blocks that are cut.
    statistics : {"normal", "permuted"}
        How a block starts from the statistics of a source: each tensor is drawn from a normal distribution with the
        mean and the standard deviation of the source's, or has its values in random order [1]_ [2]_.

    Raises
    ------
    ParameterError
        If a value is not allowed, or a block that is cut would be frozen.

    References
    ----------
    .. [1] M. Raghu, C. Zhang, J. Kleinberg, S. Bengio: Transfusion: Understanding transfer learning for medical
       imaging. NeurIPS 2019, section 5.
    .. [2] C. Matsoukas, J. F. Haslum, M. Sorkhei, M. Söderberg, K. Smith: What makes transfer learning work for medical
       images: feature reuse & other factors. CVPR 2022.

    Examples
    --------
    >>> TransferPlan.freeze(2)
    TransferPlan(pretrained_through=4, frozen_through=2, truncate_after=4, bn='fixed')
    >>> TransferPlan(start="IIIII", train="FFFAA") == TransferPlan.freeze(2)
    True
    >>> TransferPlan(start="iRRRR", statistics="permuted")
    TransferPlan(start='iRRRR', train='AAAAA', statistics='permuted')
    >>> str(TransferPlan.truncate(3)), TransferPlan.scratch().words
    ('p4-none-3', 'pnone-none-4')
    >>> TransferPlan(3, truncate_after=3) == TransferPlan.truncate(3)
    True
    """

    SUCH_AS: ClassVar[str] = ", such as TransferPlan.freeze(2)"
    start: str
    train: str
    bn: BatchNorm
    statistics: Statistics

    def __init__(
        self,
        pretrained_through: int | None = LAST,
        frozen_through: int | None = None,
        truncate_after: int = LAST,
        bn: BatchNorm = "fixed",
        *,
        start: str | None = None,
        train: str | None = None,
        statistics: Statistics = "normal",
    ) -> None:
        _check_word("bn", bn, ("fixed", "updating"))
        _check_word("statistics", statistics, ("normal", "permuted"))
        pretrained = _checked("pretrained_through", pretrained_through, THROUGH)
        frozen = _checked("frozen_through", frozen_through, THROUGH)
        after = _checked("truncate_after", truncate_after, BLOCKS[1:]) or 0
        if start is not None and pretrained != LAST:
            raise ParameterError(f"start={start!r} and pretrained_through={block_text(pretrained)}: give only one")
        if train is not None and frozen is not None:
            raise ParameterError(f"train={train!r} and frozen_through={frozen}: give only one")
        for name, letters in (("start", start), ("train", train)):
            if letters is not None:
                _check_letters(name, letters)
                after = _cut(name, letters, after)
        _check_cut(pretrained, frozen, after)
        start = _prefix(SOURCES[0], pretrained, RANDOM) if start is None else start
        train = _prefix("F", frozen, "A") if train is None else train
        start, train = (letters[: after + 1].ljust(len(BLOCKS), CUT) for letters in (start, train))
        bn = bn if "F" in train else "fixed"
        statistics = statistics if re.search("[a-z]", start) else "normal"
        for name, value in (("start", start), ("train", train), ("bn", bn), ("statistics", statistics)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        values = self.flat()
        if self.numbers is None:
            values = {name: value for name, value in values.items() if value not in ("fixed", "normal")}
        return f"TransferPlan({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def __str__(self) -> str:
        return self.words

    def warn(self) -> None:
        """Warn, once per process, if blocks are frozen at random weights although others are trained."""
        # No warning where all that is kept is frozen: the linear probe of a random network is a control on purpose.
        random = [block for block in self.blocks if self.is_frozen(block) and not self.is_pretrained(block)]
        if random and not all(map(self.is_frozen, self.blocks)):
            words = " ".join(map(str, random))
            warn_once(f"{self}: blocks {words} are frozen at random weights (meant for a random-features control)")

    @classmethod
    def finetune(cls) -> TransferPlan:
        """Start all blocks from the source and train them all."""
        return cls()

    @classmethod
    def scratch(cls) -> TransferPlan:
        """Train all blocks from random weights."""
        return cls(pretrained_through=None)

    @classmethod
    def fuse(cls, k: int | None, *, behind: Literal["random"] | Statistics = "random") -> TransferPlan:
        """Start the blocks through `k` from the source, and the others from random weights or from its statistics."""
        if behind == "random":
            return cls(pretrained_through=k)
        return cls(start=_prefix("I", _checked("k", k, THROUGH), "i"), statistics=behind)

    @classmethod
    def reverse(cls, k: int | None) -> TransferPlan:
        """Start the blocks from `k` on from the source and those before it from random weights; None: all random."""
        k = _checked("k", k, THROUGH)
        return cls(start=_prefix(RANDOM, LAST if k is None else k - 1, "I"))

    @classmethod
    def freeze(cls, k: int, *, bn: BatchNorm = "fixed") -> TransferPlan:
        """Start all blocks from the source and freeze those through `k`."""
        return cls(frozen_through=k, bn=bn)

    @classmethod
    def surgical(cls, k: int) -> TransferPlan:
        """Start all blocks from the source, and train only block `k` and the head."""
        _checked("k", k, BLOCKS)
        return cls(train="".join("A" if block == k else "F" for block in BLOCKS))

    @classmethod
    def norm(cls, k: int | None, *, pretrained: bool = True) -> TransferPlan:
        """Train only the normalisation layers of the blocks through `k`, and all of the others."""
        train = _prefix("N", _checked("k", k, THROUGH), "A")
        return cls(LAST if pretrained else None, train=train)

    @classmethod
    def truncate(cls, k: int) -> TransferPlan:
        """Start from the source and cut the blocks after `k`."""
        return cls(truncate_after=k)

    @classmethod
    def probe(cls, k: int, *, bn: BatchNorm = "fixed") -> TransferPlan:
        """Train only a linear head on the pooled output of block `k` of the pretrained model."""
        return cls(frozen_through=k, truncate_after=k, bn=bn)

    @property
    def truncate_after(self) -> int:
        """The last block that is kept."""
        return len(self.start.rstrip(CUT)) - 1

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are kept, stem first."""
        return BLOCKS[: self.truncate_after + 1]

    @property
    def numbers(self) -> tuple[int | None, int | None, int] | None:
        """pretrained_through, frozen_through and truncate_after, if they say the same as the letters; else None."""
        start, train = re.fullmatch("(I*)R*", self.start.rstrip(CUT)), re.fullmatch("(F*)A*", self.train.rstrip(CUT))
        if not start or not train:
            return None
        pretrained, frozen = len(start[1]) - 1, len(train[1]) - 1
        through = LAST if pretrained == self.truncate_after else pretrained
        return through if through >= 0 else None, frozen if frozen >= 0 else None, self.truncate_after

    @property
    def pretrained_through(self) -> int | None:
        """The last block that starts from the source, if all before it do and none after it; else ParameterError."""
        return self._number(0)

    @property
    def frozen_through(self) -> int | None:
        """The last block that is frozen, if all before it are and all after it are trained; else ParameterError."""
        return self._number(1)

    def _number(self, i: int) -> int | None:
        if self.numbers is None:
            raise ParameterError(f"the plan {self} cannot be given by {NUMBERS[i]}: use its start and train")
        return self.numbers[i]

    @property
    def words(self) -> str:
        """The plan in run ids, such as ``p4-none-4`` or ``IIiii-NNAAA``."""
        if self.numbers is not None:
            text = "p" + "-".join(map(block_text, self.numbers))
        else:
            text = f"{self.start.rstrip(CUT)}-{self.train.rstrip(CUT)}"
        usual = {"fixed", "normal"}
        return "-".join([text, *(word for word in (self.bn, self.statistics) if word not in usual)])

    @property
    def title(self) -> str:
        """The plan in figures and tables: "pretrained", "from scratch", "frozen through Block 2" and so on."""
        words = self._letters_in_words() if self.numbers is None else self._numbers_in_words(*self.numbers)
        return ", ".join([*words, *(["BatchNorm updating"] if self.bn == "updating" else [])])

    def _numbers_in_words(self, pretrained: int | None, frozen: int | None, after: int) -> list[str]:
        if frozen == after and pretrained in (None, LAST):
            return [f"linear probe of Block {after}", *(["random weights"] if pretrained is None else [])]
        words = ["from scratch"] if pretrained is None else []
        words += [f"pretrained through Block {pretrained}"] if pretrained not in (None, LAST) else []
        words += [f"frozen through Block {frozen}"] if frozen is not None else []
        words += [f"truncated after Block {after}"] if after < LAST else []
        return words or ["pretrained"]

    def _letters_in_words(self) -> list[str]:
        kind = "statistics" if self.statistics == "normal" else "permuted values"
        first = SOURCES[0]
        starts = {first: "{} pretrained", RANDOM: "{} random", first.lower(): f"{{}} {kind} of the pretrained"}
        others = {letter: f"{{}} from source {letter}" for letter in self.letters if letter != first}
        others |= {letter.lower(): f"{{}} {kind} of source {letter}" for letter in others}
        trained = {"A": "", "N": "only normalisation layers of {} trained", "F": "{} frozen"}
        words = [*_by_blocks(self.start, starts | others), *_by_blocks(self.train, trained)]
        if re.fullmatch("F*AF*", train := self.train.rstrip(CUT)):
            words = [*_by_blocks(self.start, starts | others), f"only Block {train.index('A')} trained"]
        return words + ([f"truncated after Block {self.truncate_after}"] if CUT in self.start else [])

    def flat(self) -> dict[str, Any]:
        """Return the plan as values by name: the three numbers where they suffice, else letters; as run files do."""
        if self.numbers is not None:
            return dict(zip(NUMBERS, self.numbers, strict=True)) | {"bn": self.bn}
        return {"start": self.start, "train": self.train, "bn": self.bn, "statistics": self.statistics}

    @property
    def letters(self) -> tuple[str, ...]:
        """The capital letters of the sources, in the order in which the blocks name them."""
        return tuple(dict.fromkeys(self.start.rstrip(CUT).upper().replace(RANDOM, "")))

    def renamed(self, letters: Mapping[str, str]) -> TransferPlan:
        """Return the plan with other letters for its sources, by their capital letters."""
        pairs = {**letters, **{old.lower(): new.lower() for old, new in letters.items()}}
        start = "".join(pairs.get(letter, letter) for letter in self.start)
        return TransferPlan(start=start, train=self.train, bn=self.bn, statistics=self.statistics)

    def is_pretrained(self, block: int | Literal["head"]) -> bool:
        """Return whether `block` is kept and starts from the weights of a source; the head never does."""
        return block != "head" and self._letter(self.start, block).isupper() and self.start[block] != RANDOM

    def is_frozen(self, block: int) -> bool:
        """Return whether `block` is kept and nothing of it is trained."""
        return self._letter(self.train, block) == "F"

    @staticmethod
    def _letter(letters: str, block: int) -> str:
        _checked("block", block, BLOCKS)
        return letters[block]

    @property
    def n_frozen(self) -> int:
        """Number of blocks that are frozen before the first that is trained."""
        return len(self.train) - len(self.train.lstrip("F"))


def _prefix(letter: str, through: int | None, other: str) -> str:
    """Return one letter for the blocks through a number, and another for those behind it."""
    n = 0 if through is None else through + 1
    return letter * n + other * (len(BLOCKS) - n)


def _by_blocks(letters: str, words: Mapping[str, str]) -> list[str]:
    """Return in words what letters say of blocks, such as "Blocks 0 to 2 frozen"."""
    texts = []
    for part in re.finditer(r"(.)\1*", letters := letters.rstrip(CUT)):
        first, last = part.start(), part.end() - 1
        blocks = f"Block {first}" if first == last else f"Blocks {first} to {last}"
        texts.append(words[part[1]].format("all blocks" if part[0] == letters else blocks))
    return [text for text in texts if text]


def _check_cut(pretrained: int | None, frozen: int | None, after: int) -> None:
    """Raise if a block that is cut would be frozen; warn if it would be pretrained."""
    if frozen is not None and frozen > after:
        raise ParameterError(
            f"frozen_through={frozen} must not exceed truncate_after={after}: a block that is cut cannot be frozen"
        )
    if pretrained is not None and after < pretrained < LAST:
        warn_once(
            f"pretrained_through={pretrained} with truncate_after={after}: a block that is cut cannot be pretrained; "
            f"this is the same as pretrained_through={LAST}"
        )


def _check_word(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ParameterError(f"{name}={value!r} must be {' or '.join(map(repr, allowed))}")


def _check_letters(name: str, letters: Any) -> None:
    """Raise unless there are five letters that are allowed, with at least the first two blocks kept."""
    kinds = {
        "start": (
            "[A-Za-qs-z]",
            "R (random), I or another capital letter (a source), its small letter (the statistics of the source)",
            "IIRRR",
        ),
        "train": ("[ANF]", "A (all is trained), N (normalisation layers only), F (frozen)", "NNAAA"),
    }
    pattern, rule, example = kinds[name]
    if not isinstance(letters, str) or not re.fullmatch(f"{pattern}{{2,5}}-{{0,3}}", letters) or len(letters) != 5:
        nothing = ": r would be the statistics of nothing" if name == "start" and "r" in str(letters) else ""
        raise ParameterError(
            f"{name}={letters!r} must have five letters, one per block: {rule}, or - for the last blocks, up to three, "
            f"that are cut, such as {example}{nothing}"
        )


def _cut(name: str, letters: str, after: int) -> int:
    """Return the last block that is kept by letters and a number, either of which may leave it open."""
    last = len(letters.rstrip(CUT)) - 1
    if LAST not in (last, after) and last != after:
        raise ParameterError(f"{name}={letters!r} keeps Block {last} as the last, but another option Block {after}")
    return min(last, after)


def _checked(name: str, value: Any, choices: tuple[int | None, ...]) -> int | None:
    """Return a block as an int (HDF5 gives NumPy's), or None; raise if it is not one of the choices."""
    try:
        number = None if value is None else operator.index(value)
    except TypeError:
        number = -1
    if number not in choices or isinstance(value, bool):
        rule = ("none or " if None in choices else "") + f"one of {', '.join(str(c) for c in choices if c is not None)}"
        remedy = ": a stem alone has no block to classify from" if name == "truncate_after" and number == 0 else ""
        raise ParameterError(f"{name}={value!r} must be {rule}{remedy}")
    return number


def block_text(number: int | None) -> str:
    """Return a block number, or none, as text for options and tables."""
    return "none" if number is None else str(number)
