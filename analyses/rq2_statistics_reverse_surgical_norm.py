"""Question 2, plans by block: features or scale, later blocks alone, one block alone, normalisation layers alone.

ESC-10 (5 official folds), one network, preset quick, one seed. Writes ``statistics`` (Blocks 0 to K pretrained, behind
them random weights or the statistics of pretrained ones), ``reverse`` (Blocks K to 4 pretrained), ``surgical`` (only
Block K and the head trained) and ``norm`` (only normalisation layers trained through Block K), each .png, .pdf and
.csv. Finished runs, those of fusion too, are not trained again.

    python -m analyses.rq2_statistics_reverse_surgical_norm --clips path/to/esc10/clips.csv

The options are handed on to the four commands: ``--source audioset=FILE``, for example.
"""

import sys
from dataclasses import dataclass

from analyses import BACKBONES
from transferlens.norm import main as norm
from transferlens.options import QuestionOptions
from transferlens.reverse import main as reverse
from transferlens.statistics import main as statistics
from transferlens.study import Step, script
from transferlens.surgical import main as surgical
from transferlens.training.sweep import SweepOptions

STEPS = [Step.of(command, {"backbone": BACKBONES[:1]}) for command in (statistics, reverse, surgical, norm)]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare accuracies by block: what later blocks start from, which start pretrained, and which are trained."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1])


main = script("analyses.rq2_statistics_reverse_surgical_norm", Options, STEPS)

if __name__ == "__main__":
    sys.exit(main())
