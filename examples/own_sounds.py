"""Your own sounds: a table with path, label and fold becomes accuracies. python examples/own_sounds.py [clips.csv]"""

import sys

import transferlens as tl
from transferlens.synth import export

if len(sys.argv) < 2:
    export("sounds")  # the built-in sounds as files, to have some

clips = tl.open_dataset(sys.argv[1] if len(sys.argv) > 1 else "sounds/clips.csv")
print(clips, clips.counts(), sep="\n")

result = tl.pretraining(clips.path, folds=1, epochs=2, width=64, long="none")
print(result.summary())
print(*result.write("figures"), sep="\n")
