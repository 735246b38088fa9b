"""Options that several commands share, in groups; the command line takes all of them under one level of names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from transferlens.compare.tuning import TuneOptions
from transferlens.models.plan import BLOCKS, TransferPlan, block_text
from transferlens.plots.style import WIDTH
from transferlens.training.sweep import StudyOptions, SweepOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.text import some

# A block, or "none" on the command line.
_BlockOrNone = Annotated[
    int | None,
    Rule("none or one of 0, 1, 2, 3, 4", BLOCKS.__contains__),
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{none,0,1,2,3,4}",
        instance_from_str=lambda args: None if args[0].lower() == "none" else int(args[0]),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: [block_text(value)],
    ),
]


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Fields):
    """The transfer plan: which blocks start pretrained, which are frozen, and where the network is cut."""

    pretrained_through: _BlockOrNone = BLOCKS[-1]
    """Last block that starts from pretrained weights (0 is the stem). none: train from scratch."""
    frozen_through: _BlockOrNone = None
    """Last block that is frozen, with all blocks before it. Default: none, all blocks are trained."""
    truncate_after: int = BLOCKS[-1]
    """Last block that is kept, 1 to 4; the classifier follows it directly."""
    bn: Literal["fixed", "updating"] = "fixed"
    """BatchNorm statistics of frozen blocks, if any. fixed: the source's. updating: they follow the new clips."""
    start: str | None = None
    """Instead of --pretrained-through: a letter for each of the five blocks, such as IIRRR. R: random. I, or the first
    letter of another source: its weights; the small letter: its statistics. -: the block is cut."""
    train: str | None = None
    """Instead of --frozen-through: a letter for each of the five blocks, such as NNAAA. A: all of it is trained. N: its
    normalisation layers only. F: it is frozen. -: the block is cut."""
    statistics: Literal["normal", "permuted"] = "normal"
    """What the small letters of --start stand for. normal: values from a normal distribution with the mean and
    deviation of each tensor of the source. permuted: the values of each tensor in random order."""

    def plan(self, sweep: SweepOptions | None = None) -> TransferPlan:
        """Return the transfer plan of these options; raise ParameterError if they or the weights have no effect."""
        sweep = sweep or SweepOptions()
        plan = TransferPlan(**vars(self))
        given = f"weights={sweep.weights!r}" if sweep.weights != "auto" else f"source={some(sweep.source)!r}"
        if not plan.letters and (sweep.source or sweep.weights != "auto"):
            raise ParameterError(f"{given} has no effect, as all blocks start from random weights: leave it out")
        if self.bn != plan.bn:
            raise ParameterError("bn='updating' needs frozen blocks: give frozen_through or train, or leave bn out")
        if self.statistics != plan.statistics:
            raise ParameterError("statistics='permuted' needs a block that starts from statistics, as in start='iRRRR'")
        return plan


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Fields):
    """What is written."""

    figures: Path = Path("figures")
    """Folder for the figures (.png, .pdf) and their numbers (.csv)."""


@dataclass(frozen=True, kw_only=True)
class FigureOptions(OutputOptions):
    """What is written, and what the figures look like."""

    figure_width: Annotated[str | None, WIDTH] = None
    """Width of the figures with its unit, such as 8cm or 17cm, one or two columns of a paper: all text has 7 points,
    and panels that would be too narrow lie below each other. Default: that of each figure."""
    titles: bool = True
    """Write a title above each figure; --no-titles leaves it out, where the caption says it."""


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(Fields):
    """Whether runs are trained."""

    dry_run: bool = False
    """Train nothing; print which runs are missing, and the time and disk space that they need."""


@dataclass(frozen=True, kw_only=True)
class PlannedOptions(DryRunOptions, FigureOptions):
    """What is written."""


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(StudyOptions):
    """The options of a question that trains runs."""

    output: PlannedOptions = PlannedOptions()


@dataclass(frozen=True, kw_only=True)
class BlockOptions(QuestionOptions):
    """The options of a question that is asked block by block."""

    block: tuple[int, ...] = ()
    """Blocks to compare: 0 (the stem; not for truncate) to 4. Default: all."""
    references: bool = True
    """Train two references too, the fully pretrained network and one from scratch; --no-references leaves them out."""
    tune: TuneOptions = TuneOptions()
