"""Question 2, from finished runs: blocks put back, paths between networks, scores by class, scores without training.

ESC-10 (5 official folds), preset quick. Writes ``rewind`` (three networks: what did each block need of its training?),
``paths`` (one network, three seeds: the line from start to end and between seeds, and the average of their weights),
``classes`` (three networks: which classes does pretraining help?) and ``rank`` (three networks: LogME and nearest
neighbours of each block, against the linear probes), each .png, .pdf and .csv. Only runs that other scripts have not
trained are trained.

    python -m analyses.rq2_finished_runs --clips path/to/esc10/clips.csv

The options are handed on to the four commands.
"""

import sys
from dataclasses import dataclass

from analyses import BACKBONES
from transferlens.classes import main as classes
from transferlens.options import QuestionOptions
from transferlens.paths import main as paths
from transferlens.rank import main as rank
from transferlens.rewind import main as rewind
from transferlens.study import Step, script
from transferlens.training.sweep import SweepOptions

STEPS = [
    Step.of(rewind, {"backbone": BACKBONES}),
    Step.of(paths, {"backbone": BACKBONES[:1], "seeds": (0, 1, 2)}),
    Step.of(classes, {"backbone": BACKBONES}),
    Step.of(rank, {"backbone": BACKBONES, "against": "probe"}),
]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Ask what finished runs can still tell."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES)


main = script("analyses.rq2_finished_runs", Options, STEPS)

if __name__ == "__main__":
    sys.exit(main())
