"""`transferlens <command>` and `python -m transferlens <command>`: every command under one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from transferlens import __version__, cli

COMMANDS = {
    "demo": "the main job on the built-in data: pretrained against scratch, with figures",
    "pretraining": "question 1: pretrained against random initialisation",
    "freeze": "question 2: accuracy with the blocks 0 to K held fixed",
    "fuse": "question 2: accuracy with only the blocks 0 to K pretrained",
    "truncate": "question 2: accuracy of the network cut after Block K",
    "plan_grid": "question 2: accuracy over the whole plan space, as heat maps",
    "svcca": "question 2: how far each layer of trained networks has moved",
    "saliency": "question 5: what a network looks at, scored and to listen to",
    "input_form": "question 3: how the input is made, and what is left of time stretching",
    "ensemble": "question 4: averaged outputs of several networks, what they gain and why",
    "robustness": "question 4: single networks and ensembles as clips are corrupted",
    "selection": "which epoch is reported, and how much that flatters",
    "tables": "the paper's tables from a run store, beside its published values",
    "report": "one self-contained page of a run store and its figures",
    "train": "train networks under a transfer plan",
    "study": "a whole study from one file",
    "runs": "list the runs of a store, or show single ones",
    "datasets": "the data sets that are known; --audit checks one",
    "duplicates": "clips of two folds that may be of one recording, and accuracy without them",
    "synth": "write the built-in data set as sound files",
    "backbones": "show the blocks of a network",
}


def _usage() -> str:
    lines = [
        f"transferlens {__version__}: what ImageNet-pretrained CNNs bring to audio, and where it sits",
        "",
    ]
    lines += [
        "usage: transferlens COMMAND [options]      (the same: python -m transferlens.COMMAND [options])",
        "",
    ]
    lines += [f"  {name:<12} {what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "transferlens COMMAND --help explains a command's options."])


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the rest of the line to the command named first."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return cli.DONE if arguments else cli.BAD_INPUT
    if arguments[0] == "--version":
        print(__version__)
        return cli.DONE
    if arguments[0] not in COMMANDS:
        print(f"error: command {arguments[0]!r} must be one of {', '.join(COMMANDS)}", file=sys.stderr)
        return cli.BAD_INPUT
    return importlib.import_module(f"transferlens.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
