"""What do several networks gain together? Two seeds, their outputs averaged."""

import transferlens as tl

runs = tl.Study(folds=[1], seeds=[0, 1], epochs=2, width=64).runs(tl.TransferPlan.finetune())
result = tl.ensemble(runs)

print(result.summary())
result.write("figures")
