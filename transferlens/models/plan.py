"""The transfer plan: which blocks start pretrained, which stay frozen, and where the backbone is cut.

Every experiment is three numbers over the blocks of a backbone (0 = stem, 1..4 = Block 1..Block 4). No other module
distinguishes "freezing experiments" from "fusion experiments".

==============================  ==================  ==============  ==============
experiment                      pretrained_through  frozen_through  truncate_after
==============================  ==================  ==============  ==============
fine-tune the ImageNet model    4                   none            4
train from scratch              none                none            4
weight fusion at k              k                   none            4
freezing at k                   4                   k               4
truncation at k                 4                   none            k
linear probe of Block k         4                   k               k
==============================  ==================  ==============  ==============

``through`` includes the block that it names; ``truncate_after`` keeps the block that it names and cuts those that
follow.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transferlens.util.errors import ParameterError, warn_once

BLOCKS = (0, 1, 2, 3, 4)  # the stem and the four blocks of every backbone
LAST = BLOCKS[-1]


@dataclass(frozen=True)
class TransferPlan:
    """Which blocks start from ImageNet weights, which are frozen, and where the network is cut.

    Plans that are the same experiment are equal: if all kept blocks are pretrained, `pretrained_through` becomes 4, and
    if no block is frozen, `bn` becomes "fixed".

    Parameters
    ----------
    pretrained_through : int in 0..4 or None
        Blocks 0 to this one start from ImageNet weights; later blocks are entirely randomly initialised, normalisation
        layers too. None: train from scratch.
    frozen_through : int in 0..truncate_after or None
        Blocks 0 to this one are not trained. None: all blocks are trained.
    truncate_after : int in 1..4
        The last block that is kept; the head follows it directly.
    bn : {"fixed", "updating"}
        Whether the BatchNorm statistics of frozen blocks are frozen too, or are updated by the new data.

    Raises
    ------
    ParameterError
        If a value is not allowed, or a block that is cut would be frozen.

    Examples
    --------
    >>> TransferPlan.freeze(2)
    TransferPlan(pretrained_through=4, frozen_through=2, truncate_after=4, bn='fixed')
    >>> str(TransferPlan.truncate(3)), TransferPlan.scratch().words
    ('p4-none-3', 'pnone-none-4')
    >>> TransferPlan(3, truncate_after=3) == TransferPlan.truncate(3)
    True
    """

    SUCH_AS: ClassVar[str] = ", such as TransferPlan.freeze(2)"
    pretrained_through: int | None = LAST
    frozen_through: int | None = None
    truncate_after: int = LAST
    bn: Literal["fixed", "updating"] = "fixed"

    def __post_init__(self) -> None:
        through = (None, *BLOCKS)
        choices = {"pretrained_through": through, "frozen_through": through, "truncate_after": BLOCKS[1:]}
        for name, allowed in choices.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), allowed))
        if self.bn not in ("fixed", "updating"):
            raise ParameterError(f"bn={self.bn!r} must be 'fixed' or 'updating'")
        if self.pretrained_through is not None and self.truncate_after < self.pretrained_through < LAST:
            warn_once(
                f"pretrained_through={self.pretrained_through} with truncate_after={self.truncate_after}: a block that "
                f"is cut cannot be pretrained; this is the same as pretrained_through={LAST}"
            )
        self._check_frozen()
        if self.pretrained_through is not None and self.pretrained_through >= self.truncate_after:
            object.__setattr__(self, "pretrained_through", LAST)
        if self.frozen_through is None:
            object.__setattr__(self, "bn", "fixed")

    def _check_frozen(self) -> None:
        if self.frozen_through is not None and self.frozen_through > self.truncate_after:
            raise ParameterError(
                f"frozen_through={self.frozen_through} must not exceed truncate_after={self.truncate_after}: "
                "a block that is cut cannot be frozen"
            )

    def warn(self) -> None:
        """Warn, once per process, if blocks are frozen at random weights although others are trained."""
        frozen, pretrained = self.frozen_through, self.pretrained_through
        # No warning where all that is kept is frozen: the linear probe of a random network is a control on purpose.
        if frozen is not None and (pretrained is None or frozen > pretrained) and frozen < self.truncate_after:
            warn_once(
                f"frozen_through={frozen} with pretrained_through={block_text(pretrained)}: the blocks between "
                "are frozen at random weights (meant for a random-features control)"
            )

    @classmethod
    def finetune(cls) -> TransferPlan:
        """Start all blocks from ImageNet and train them all."""
        return cls()

    @classmethod
    def scratch(cls) -> TransferPlan:
        """Train all blocks from random weights."""
        return cls(pretrained_through=None)

    @classmethod
    def fuse(cls, k: int) -> TransferPlan:
        """Start the blocks through `k` from ImageNet and the others from random weights."""
        return cls(pretrained_through=k)

    @classmethod
    def freeze(cls, k: int, *, bn: Literal["fixed", "updating"] = "fixed") -> TransferPlan:
        """Start all blocks from ImageNet and freeze those through `k`."""
        return cls(frozen_through=k, bn=bn)

    @classmethod
    def truncate(cls, k: int) -> TransferPlan:
        """Start from ImageNet and cut the blocks after `k`."""
        return cls(truncate_after=k)

    @classmethod
    def probe(cls, k: int, *, bn: Literal["fixed", "updating"] = "fixed") -> TransferPlan:
        """Train only a linear head on the pooled output of block `k` of the ImageNet model."""
        return cls(frozen_through=k, truncate_after=k, bn=bn)

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are kept, stem first."""
        return BLOCKS[: self.truncate_after + 1]

    @property
    def words(self) -> str:
        """The plan in run ids, such as ``p4-none-4``."""
        numbers = (self.pretrained_through, self.frozen_through, self.truncate_after)
        return "p" + "-".join(map(block_text, numbers)) + ("-updating" if self.bn == "updating" else "")

    def __str__(self) -> str:
        return self.words

    @property
    def title(self) -> str:
        """The plan in figures: "pretrained", "from scratch", or else `words`."""
        titles = {TransferPlan.finetune(): "pretrained", TransferPlan.scratch(): "from scratch"}
        return titles.get(self, self.words)

    def is_pretrained(self, block: int | Literal["head"]) -> bool:
        """Return whether `block` is kept and starts from ImageNet weights; the head never does."""
        return block != "head" and self._reaches(self.pretrained_through, block)

    def is_frozen(self, block: int) -> bool:
        """Return whether `block` is kept and not trained."""
        return self._reaches(self.frozen_through, block)

    def _reaches(self, through: int | None, block: int) -> bool:
        _checked("block", block, BLOCKS)
        return through is not None and block <= min(through, self.truncate_after)


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
