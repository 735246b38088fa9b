"""How deep must the network be? Cut it after Block 2, 3 and 4, and draw accuracy against its size."""

import transferlens as tl

result = tl.truncate(blocks=[2, 3, 4], folds=1, epochs=2, width=64, references=False)

print(result.table()[["block", "parameters", "accuracy_last", "change"]])
result.plot().savefig("truncate.png")
