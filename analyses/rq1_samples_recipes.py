"""Question 1, further: how many clips is pretraining worth, and which way of fine-tuning is best?

ESC-10 (5 official folds), one network, preset quick, one seed. Writes ``samples`` (1, 2, 4, 8, 16 and all training
clips per class, from ImageNet, from scratch, and linear probes) and ``recipes`` (ways of fine-tuning against the plain
one, on clean and corrupted clips), each .png, .pdf and .csv. Finished runs are not trained again.

    python -m analyses.rq1_samples_recipes --clips path/to/esc10/clips.csv

The options are handed on to both commands.
"""

import sys
from dataclasses import dataclass

from analyses import BACKBONES
from transferlens.options import QuestionOptions
from transferlens.recipes import main as recipes
from transferlens.samples import main as samples
from transferlens.study import Step, script
from transferlens.training.sweep import SweepOptions

STEPS = [Step.of(command, {"backbone": BACKBONES[:1]}) for command in (samples, recipes)]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare numbers of clips, and ways of fine-tuning."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1])


main = script("analyses.rq1_samples_recipes", Options, STEPS)

if __name__ == "__main__":
    sys.exit(main())
