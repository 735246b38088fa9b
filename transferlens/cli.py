"""One dataclass in, one exit code out: how every command parses its options and reports bad input."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import tyro

from transferlens.util import processes
from transferlens.util.errors import DryRun, ParameterError, TransferLensError

__all__ = ["COMMANDS", "Options", "command", "parse"]

# What a command exits with.
DONE, FOUND, BAD_INPUT, SOME_FAILED = 0, 1, 2, 3

# Every command, a module each, and what it answers.
COMMANDS = {
    "demo": "the main job on the built-in data: pretrained against scratch, with figures",
    "pretraining": "question 1: pretrained against random initialisation",
    "freeze": "question 2: accuracy with the blocks 0 to K held fixed",
    "fuse": "question 2: accuracy with only the blocks 0 to K pretrained",
    "truncate": "question 2: accuracy of the network cut after Block K",
    "probe": "question 2: accuracy of a linear head on each block, held fixed",
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

Options = TypeVar("Options")


class Main(Protocol):
    """A command's ``main``: without arguments, it takes those of the process."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def parse(options: type[Options], argv: Sequence[str] | None, *, prog: str) -> Options:
    """Read the command line into an instance of the dataclass `options`.

    Parameters
    ----------
    options : type
        A dataclass; each field is an option, explained by the docstring below it.
    argv : sequence of str or None
        The arguments; None means those of the process.
    prog : str
        The command's name, as ``python -m transferlens.<prog>``.

    Raises
    ------
    ParameterError
        Where an argument cannot be parsed.
    SystemExit
        After ``--help``, with code 0.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                options,
                prog=f"python -m {prog}" if "." in prog else f"transferlens {prog}",
                args=argv,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if end.code == BAD_INPUT:
            raise ParameterError(_unboxed(said.getvalue())) from None
        raise


def _unboxed(box: str) -> str:
    """What stands in tyro's box, as one line: its title left out, parts that it rules off set off by semicolons."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        inside = line.strip(" │╰╯")
        if not inside or set(inside) <= {"─", "-"}:
            parts.append([])
        else:
            parts[-1].append(inside)
    return "; ".join(" ".join(part) for part in parts if part)


def _planned(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """What a command exits with; a dry run ends with what it planned."""
    try:
        return main(argv)
    except DryRun as dry:
        print(dry.text(dry.rows()))
        return DONE


def command(main: Callable[[Sequence[str] | None], int]) -> Main:
    """Wrap a ``main(argv) -> int`` so that bad input is one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("transferlens").setLevel(logging.INFO)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # labels in any script, terminals in any encoding
        try:
            with processes.reraise_lost_signals():
                code = _planned(main, argv)
            if sys.stdout is not None:  # closed, or its reader has gone
                sys.stdout.flush()
            return code
        except TransferLensError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            sys.stdout = None  # who reads the output has gone
            return DONE
        except OSError as error:
            print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
            return BAD_INPUT
        except KeyboardInterrupt:
            print("interrupted: all finished epochs are kept, the same command goes on from there", file=sys.stderr)
            return 130

    return run
