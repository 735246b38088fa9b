"""The transfer plan: which blocks start pretrained, which stay frozen, and where the backbone is cut.

Three numbers over the blocks of a backbone (0 = stem, 1..4 = Block 1..Block 4) name every experiment of this
package, so that nothing else in it knows of "freezing experiments" or "fusion experiments":

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

``through`` includes the block it names; ``truncate_after`` keeps the block it names and cuts what follows.
"""

from __future__ import annotations

import functools
import logging
import operator
from dataclasses import dataclass, replace
from typing import Any, Literal

from transferlens.util.errors import ParameterError

__all__ = ["BLOCKS", "TransferPlan", "block_text"]

log = logging.getLogger(__name__)

BLOCKS = (0, 1, 2, 3, 4)  # the stem and the four blocks of every backbone
LAST = BLOCKS[-1]


@dataclass(frozen=True)
class TransferPlan:
    """What is taken from ImageNet, what is held fixed and what is cut away.

    Parameters
    ----------
    pretrained_through : int in 0..4 or None
        Blocks 0 to this one start from ImageNet weights. A block beyond it is wholly fresh, its normalisation
        layers too. None: train from scratch.
    frozen_through : int in 0..truncate_after or None
        Blocks 0 to this one are not trained. None: all blocks are.
    truncate_after : int in 1..4
        The last block kept; the head stands right behind it.
    bn : {"fixed", "updating"}
        Whether the BatchNorm statistics of frozen blocks stand still too, or follow the new data.

    Raises
    ------
    ParameterError
        If a number is outside its rule, or more is frozen than is kept.

    Examples
    --------
    >>> TransferPlan.freeze(2)
    TransferPlan(pretrained_through=4, frozen_through=2, truncate_after=4, bn='fixed')
    >>> str(TransferPlan.truncate(3)), TransferPlan.scratch().words
    ('p4-none-3', 'pnone-none-4')
    """

    pretrained_through: int | None = LAST
    frozen_through: int | None = None
    truncate_after: int = LAST
    bn: Literal["fixed", "updating"] = "fixed"

    def __post_init__(self) -> None:
        for name, optional, choices in (
            ("pretrained_through", True, BLOCKS),
            ("frozen_through", True, BLOCKS),
            ("truncate_after", False, BLOCKS[1:]),
        ):
            value = getattr(self, name)
            if value is not None or not optional:
                object.__setattr__(self, name, _block_number(name, value, choices=choices, optional=optional))
        if self.bn not in ("fixed", "updating"):
            raise ParameterError(f"bn={self.bn!r} must be 'fixed' or 'updating'")
        if self.pretrained_through is not None and self.truncate_after < self.pretrained_through < LAST:
            _warn_once(
                f"pretrained_through={self.pretrained_through} with truncate_after={self.truncate_after}: what is cut "
                f"cannot be pretrained; this is the same as pretrained_through={LAST}, all that is kept"
            )
        self._check_frozen()

    def _check_frozen(self) -> None:
        frozen, pretrained = self.frozen_through, self.pretrained_through
        if frozen is None:
            return
        if frozen > self.truncate_after:
            raise ParameterError(
                f"frozen_through={frozen} must not exceed truncate_after={self.truncate_after}: "
                "a block that is cut cannot be frozen"
            )
        if (pretrained is None or frozen > pretrained) and frozen < self.truncate_after:  # else a control for certain
            _warn_once(
                f"frozen_through={frozen} with pretrained_through={block_text(pretrained)}: the blocks between "
                "are frozen at random weights (meant for a random-features control)"
            )

    @property
    def title(self) -> str:
        """What figures call it: "pretrained" and "from scratch" the plainest two, `words` the others."""
        plain = {TransferPlan.finetune(): "pretrained", TransferPlan.scratch(): "from scratch"}
        return plain.get(self.canonical(), self.words)

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
        """Start all blocks from ImageNet and hold those through `k` fixed."""
        return cls(frozen_through=k, bn=bn)

    @classmethod
    def truncate(cls, k: int) -> TransferPlan:
        """Start from ImageNet and cut what follows block `k`."""
        return cls(truncate_after=k)

    @classmethod
    def probe(cls, k: int, *, bn: Literal["fixed", "updating"] = "fixed") -> TransferPlan:
        """Train only a linear head on the pooled output of block `k` of the ImageNet model."""
        return cls(frozen_through=k, truncate_after=k, bn=bn)

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are kept, the stem first."""
        return BLOCKS[: self.truncate_after + 1]

    @property
    def words(self) -> str:
        """How run ids spell the plan, such as ``p4-none-4``: equal for plans that are the same experiment."""
        plan = self.canonical()
        numbers = (plan.pretrained_through, plan.frozen_through, plan.truncate_after)
        return "p" + "-".join(map(block_text, numbers)) + ("-updating" if plan.bn == "updating" else "")

    def __str__(self) -> str:
        return self.words

    @property
    def _all_kept_is_pretrained(self) -> bool:
        return self.pretrained_through is not None and self.pretrained_through >= self.truncate_after

    def canonical(self) -> TransferPlan:
        """Return the one plan that stands for all plans that are the same experiment.

        Where all that is kept is pretrained, ``pretrained_through`` is 4; where nothing is frozen, ``bn`` is
        "fixed".
        """
        pretrained = LAST if self._all_kept_is_pretrained else self.pretrained_through
        bn = "fixed" if self.frozen_through is None else self.bn
        return replace(self, pretrained_through=pretrained, bn=bn)

    def is_pretrained(self, block: int | Literal["head"]) -> bool:
        """Whether `block` is kept and starts from ImageNet weights; the head never does."""
        return block != "head" and self._reaches(self.pretrained_through, block)

    def is_frozen(self, block: int) -> bool:
        """Whether `block` is kept and not trained."""
        return self._reaches(self.frozen_through, block)

    def _reaches(self, through: int | None, block: int) -> bool:
        block = _block_number("block", block, choices=BLOCKS)
        return through is not None and block <= min(through, self.truncate_after)


def _block_number(name: str, value: Any, *, choices: tuple[int, ...], optional: bool = False) -> int:
    """Return `value` as a plain int (HDF5 hands out NumPy's); `optional` says that none would do as well."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number not in choices:
        rule = ("none or " if optional else "") + "one of " + ", ".join(map(str, choices))
        remedy = ": a stem alone has no block to classify from" if name == "truncate_after" and number == 0 else ""
        raise ParameterError(f"{name}={value!r} must be {rule}{remedy}")
    return number


@functools.cache  # plans are made again and again, each copy of one need not repeat what its first said
def _warn_once(message: str) -> None:
    log.warning(message)


def block_text(number: int | None) -> str:
    """A block's number, or none, as options and tables spell it."""
    return "none" if number is None else str(number)
