"""One transfer plan: freeze Blocks 0 to 2 of the ImageNet network and train the rest."""

import transferlens as tl

study = tl.Study(folds=[1, 2], epochs=2, width=64)  # the built-in clips; tl.Study("clips.csv", ...) takes yours
plan = tl.TransferPlan.freeze(2)
runs = study.runs(plan)  # those that the store has are read, the others trained

for run in runs:
    print(f"fold {run.config.fold}: {run.accuracy_last:.1%} of {len(run.labels)} held-out clips")
