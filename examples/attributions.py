"""What does the network look at? Integrated Gradients of four held-out clips, with their scores."""

import transferlens as tl

(run,) = tl.Study(folds=1, epochs=2, width=64).runs(tl.TransferPlan.finetune())
result = tl.saliency(run, clips=4, score="drawn", max_steps=32, control_steps=32)

print(result.summary())  # chance: the same attributions, shifted in time or in random order
result.plot().savefig("attributions.png")
