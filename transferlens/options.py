"""The options of commands, as the command line takes them: groups that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from transferlens.models.plan import BLOCKS, TransferPlan, block_text
from transferlens.training.sweep import StudyOptions
from transferlens.util.fields import Fields

# "none" on the command line; a number outside 0..4 passes here, so that TransferPlan refuses it in one line.
_BlockOrNone = Annotated[
    int | None,
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
    """The transfer plan: which blocks start pretrained, which are held fixed, where the network is cut."""

    pretrained_through: _BlockOrNone = BLOCKS[-1]
    """Last block that starts from ImageNet weights (0 is the stem); none trains from scratch."""
    frozen_through: _BlockOrNone = None
    """Last block that is held fixed; none trains all."""
    truncate_after: int = BLOCKS[-1]
    """Last block kept, 1 to 4; the head stands right behind it."""
    bn: Literal["fixed", "updating"] = "fixed"
    """BatchNorm statistics of frozen blocks: fixed, or updating with the new data."""

    def plan(self) -> TransferPlan:
        """Return the plan that the options name.

        Raises
        ------
        ParameterError
            If they name none.
        """
        return TransferPlan(self.pretrained_through, self.frozen_through, self.truncate_after, self.bn)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Fields):
    """What is written."""

    figures: Path = Path("figures")
    """Folder for the figures (.png, .pdf) and their numbers (.csv)."""


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(Fields):
    """What is done."""

    dry_run: bool = False
    """Print which runs are missing, how long they take and what disk they need, and train nothing."""


@dataclass(frozen=True, kw_only=True)
class PlannedOptions(DryRunOptions, OutputOptions):
    """What is written."""


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(StudyOptions):
    """The options of a question that trains runs."""

    output: PlannedOptions = PlannedOptions()


@dataclass(frozen=True, kw_only=True)
class BlockOptions(QuestionOptions):
    """The options of a question that is asked block by block."""

    block: tuple[int, ...] = ()
    """Blocks to ask about (0 is the stem). Default: all."""
    references: bool = True
    """Train the fully pretrained network and the one from scratch beside them, too."""
