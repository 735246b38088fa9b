"""One dataclass in, one exit code out: how every command parses its options and reports bad input."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import tyro

from transferlens.compare.question import Question, Result
from transferlens.training import forecast
from transferlens.training.sweep import Arm, planned
from transferlens.util import processes
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import flat
from transferlens.util.files import check_writable

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


def parse(options: type[Options], argv: Sequence[str] | None, *, prog: str, default: Options | None = None) -> Options:
    """Read the command line into an instance of the dataclass `options`.

    Parameters
    ----------
    options : type
        A dataclass; each field is an option, explained by the docstring below it.
    argv : sequence of str or None
        The arguments; None means those of the process.
    prog : str
        The command's name, as ``python -m transferlens.<prog>``.
    default : instance of `options`, optional

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
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if end.code == BAD_INPUT:
            raise ParameterError(_plain(_unboxed(said.getvalue()))) from None
        raise


def _plain(message: str) -> str:
    """An error of our own without what tyro puts around it."""
    own = re.fullmatch(r"Error parsing [\w.]+: (.*?); For full helptext.*", message, re.DOTALL)
    return own[1] if own else message


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


def guarded(work: Callable[[], int]) -> int:
    """Do the work of a process: bad input becomes one line on stderr and exit code 2, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("transferlens").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # labels in any script, terminals in any encoding
    try:
        with processes.reraise_lost_signals():
            code = work()
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


@dataclass(frozen=True, eq=False)
class Command:
    """A command: called with arguments it exits as a process should, ``run`` takes options that are made already.

    Bad input is one line on stderr and exit code 2, never a traceback.

    Attributes
    ----------
    name : str
        As ``python -m transferlens.<name>``, or a module's full name.
    options : type
        A dataclass; each field is an option.
    work : Question or callable
        A question, or a function that takes the options and returns the exit code.
    default : instance of `options`, optional
        What holds where an option is not given. Default: that of the dataclass.
    arms : callable, optional
        Options to the arms that `work` needs, where it is a function that trains.
    """

    name: str
    options: type
    work: Question | Callable[[Any], int]
    default: Any = None
    arms: Callable[[Any], Mapping[Any, Arm]] | None = None

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Parse arguments, or those of the process, and do the work."""
        return guarded(lambda: self.run(parse(self.options, argv, prog=self.name, default=self.default)))

    def run(self, options: Any) -> int:
        """Do the work: of a question, print what is missing (--dry-run), or answer, write and print."""
        if not isinstance(self.work, Question):
            return self.work(options)
        output = flat(options.output)
        if "figures" in output:
            check_writable("figures", output["figures"])
        if output.get("dry_run"):
            print(forecast.text(planned(self.points(options))))
            return DONE
        result = self.work.answer(options)
        written = result.write(output["figures"]) if "figures" in output else []
        print(result.summary())
        if written:
            print(f"written: {', '.join(written)}")
        for problem in result.problems:
            print(f"error: {problem}", file=sys.stderr)
        return result.exit_code

    def points(self, options: Any) -> Mapping[Any, Arm]:
        """Return the arms that the command needs; none where it trains nothing. Raise what would stop it."""
        arms = self.work.points if isinstance(self.work, Question) else self.arms
        return {} if arms is None else arms(options)


def load(name: str) -> Command:
    """Return the command of a name in `COMMANDS`."""
    return importlib.import_module(f"transferlens.{name}").main


def command(name: str, options: type, work: Question | Callable[[Any], int]) -> Command:
    """Return the command of a module, and make the module a function where its work is a question."""
    module = sys.modules.get(f"transferlens.{name}")
    if isinstance(work, Question) and module is not None:
        module.__class__ = _Asked
    return Command(name, options, work)


class _Asked(types.ModuleType):
    """A module of one question, which is called as the question: ``tl.truncate("clips.csv")``."""

    main: Command

    @property
    def _question(self) -> Question:
        return cast(Question, self.main.work)

    def __call__(self, *first: Any, **options: Any) -> Result:
        return self._question(*first, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return self._question.signature()

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return f"{vars(self)['__doc__']}\n\n{self._question.describe()}"
