"""How far has each layer moved in training? SVCCA before against after, at the end of every block."""

import transferlens as tl

(run,) = tl.Study(folds=1, epochs=2, width=64).runs(tl.TransferPlan.finetune())
result = tl.svcca(run, positions=16, resamples=0)

table = result.table()
blocks = table[table.layer.str.startswith("block")]
print(blocks[["layer", "n_neurons", "n_samples", "svcca", "svcca_chance", "cka", "too_few"]].round(2))
result.plot().savefig("svcca.png")
