"""How much has training changed each layer? SVCCA before against after, at the end of every block."""

import transferlens as tl

(run,) = tl.Study(folds=1, epochs=2, width=64).runs(tl.TransferPlan.finetune())
result = tl.svcca(run, positions="mean", resamples=0)

table = result.table()
ends = table[table.layer.str.startswith("block ")]
print(ends[["layer", "n_neurons", "n_samples", "svcca", "svcca_chance", "too_few"]].round(2).to_string(index=False))
result.plot().savefig("svcca.png")
