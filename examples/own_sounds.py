"""Your own sounds: a table with path, label and fold becomes accuracies. python examples/own_sounds.py [clips.csv]"""

import sys
from pathlib import Path

import transferlens as tl
from transferlens.synth import export

table = Path(sys.argv[1] if len(sys.argv) > 1 else "sounds/clips.csv")
if not table.exists():
    export(table.parent)  # the built-in sounds as files, to have some

clips = tl.open_dataset(table)
print(clips, clips.counts(), sep="\n")

result = tl.pretraining(table, folds=1, epochs=2, width=64, long="none")
print(result.summary())
print(*result.write("figures"), sep="\n")
