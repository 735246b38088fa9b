"""How every command reads its options, does its work, and reports bad input.

`COMMANDS` lists the commands. `command` makes one of a dataclass of options and a question or a function, `parse` reads
the command line, and `guarded` turns errors into one line and an exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import logging
import re
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass, replace
from typing import Annotated, Any, TypeVar, cast, get_args

import tyro
from tyro import conf, constructors

from transferlens.compare.question import Question, Result
from transferlens.training import forecast
from transferlens.training.sweep import Arm, planned
from transferlens.util import processes
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import explained, flat
from transferlens.util.files import check_new, check_writable
from transferlens.util.terminal import log_to_stderr, say
from transferlens.util.text import some

# Exit codes.
DONE, FOUND, BAD_INPUT, SOME_FAILED = 0, 1, 2, 3

# The question that each command, a module of this name, answers.
COMMANDS = {
    "demo": "a first look on the built-in clips: networks pretrained and from scratch",
    "pretraining": "question 1: networks pretrained and randomly initialised",
    "freeze": "question 2: accuracy with Blocks 0 to K frozen",
    "fuse": "question 2: accuracy with only Blocks 0 to K pretrained",
    "truncate": "question 2: accuracy of the network cut after Block K",
    "probe": "question 2: accuracy of a linear head on each frozen block",
    "plan_grid": "question 2: accuracy over the whole plan space, as heat maps",
    "statistics": "features or scale: later blocks start from the statistics of the weights",
    "reverse": "accuracy with only Blocks K to 4 pretrained",
    "surgical": "accuracy with only Block K and the head trained",
    "norm": "accuracy with only normalisation layers trained through Block K",
    "sources": "one target, several starts: ImageNet, other weights, earlier runs",
    "samples": "how many labelled clips pretraining saves: accuracy against clips per class",
    "recipes": "which way of fine-tuning is better than the plain one, on clean and on corrupted clips",
    "rank": "which network and block suits the clips, without training: LogME, nearest neighbours",
    "svcca": "question 2: how much training has changed each layer",
    "rewind": "which blocks needed training: put back to their start, with statistics estimated anew",
    "paths": "accuracy along the straight line between two networks, and the average of seeds",
    "saliency": "question 5: where on the spectrogram a decision comes from: pictures, scores, sounds",
    "league": "which method of attribution can be believed: known answers, insertion and deletion, stability",
    "input_form": "question 3: how the input is made, and what a resize leaves of time stretching",
    "ensemble": "question 4: what averaging the outputs of several networks gains, and why",
    "robustness": "question 4: accuracy of single networks and ensembles on corrupted clips",
    "classes": "which classes the networks know, and which pretraining and ensembles help",
    "versus": "two runs or two arms: settings, accuracy, clips that flipped, learning curves, classes",
    "selection": "which epoch is reported, and by how much the best one is too optimistic",
    "tables": "the paper's tables of a run store, next to the published values",
    "report": "one page with the runs and figures of a study",
    "train": "train networks under a transfer plan",
    "predict": "classify sound files by finished runs",
    "embed": "compute the output of a block for sound files",
    "export": "write a run for timm, onnxruntime or torch alone",
    "study": "run the commands of a study file",
    "all": "all questions on your clips, as the study on ESC-10 answers them, and the text with the results",
    "runs": "list the runs of a store, or show single runs",
    "datasets": "list known data sets; describe, check or download one",
    "duplicates": "clips of two folds that may come from one recording, and accuracy without them",
    "synth": "write the built-in clips as sound files",
    "backbones": "show the blocks of a network",
}

# Options are given without their group, a flag in one way only, and None by leaving the option out.
STYLE = (conf.OmitArgPrefixes, conf.FlagCreatePairsOff, conf.DisallowNone, conf.HelptextFromCommentsOff)

Options = TypeVar("Options")

# How the fields of `util.fields` are read and explained.
RULES = constructors.ConstructorRegistry()


@RULES.struct_rule
def _explained(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
    """Explain each field by the text below it, and by its default, where it has one."""
    if not is_dataclass(info.type):
        return None
    specs = []
    for name, hint, text, default in explained(info.type):
        value = getattr(info.default, name) if isinstance(info.default, info.type) else default
        if not is_dataclass(hint):
            shown: Any = ""
            if value not in (None, (), MISSING) and not isinstance(value, bool):
                text, shown = re.sub(r" Default: [^.]*\.", "", text), "(default: {})".format
            hint = Annotated[hint, conf.arg(help=text, help_behavior_hint=shown)]
        specs.append(constructors.StructFieldSpec(name, hint, tyro.MISSING_NONPROP if value is MISSING else value))
    return constructors.StructConstructorSpec(info.type, tuple(specs))


@RULES.primitive_rule
def _one_or_more(info: constructors.PrimitiveTypeInfo) -> constructors.PrimitiveConstructorSpec | None:
    """Read a tuple of any length from one value or more: an option without a value would mean all."""
    kinds = get_args(info.type)
    if info.type_origin is not tuple or kinds[-1] is not ...:
        return None
    inner = constructors.PrimitiveTypeInfo.make(kinds[0], info.markers)
    each = cast(constructors.PrimitiveConstructorSpec, constructors.ConstructorRegistry.get_primitive_spec(inner))

    def values(words: list[str]) -> tuple[Any, ...]:
        if not words:
            raise ValueError("it needs one value or more")
        return tuple(each.instance_from_str([word]) for word in words)

    return replace(
        each,
        nargs="*",
        metavar=f"{each.metavar}...",
        instance_from_str=values,
        is_instance=lambda value: isinstance(value, tuple) and all(map(each.is_instance, value)),
        str_from_instance=lambda value: [word for item in value for word in each.str_from_instance(item)],
    )


def parse(options: type[Options], argv: Sequence[str] | None, *, prog: str, default: Options | None = None) -> Options:
    """Read arguments, by default those of the process, into an instance of a dataclass; see `Command` for the others.

    Raise ParameterError if they cannot be parsed, and SystemExit after ``--help``.
    """
    argv = sys.argv[1:] if argv is None else argv
    flags = [word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    if twice := [flag for flag in flags if flags.count(flag) > 1]:
        raise ParameterError(f"{twice[0]} is given twice")
    for flag, word in zip(["", *argv], argv, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            raise ParameterError(f"{(word or flag).rstrip('=') or 'an argument'} has an empty value: leave it out")
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), RULES:
            return tyro.cli(
                options,
                prog=f"python -m {prog}" if "." in prog else f"transferlens {prog}",
                args=argv,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=STYLE,
            )
    except SystemExit as end:
        if end.code == BAD_INPUT:
            raise ParameterError(_one_line(stderr.getvalue())) from None
        raise


def _one_line(box: str) -> str:
    """Return the text of tyro's box as one line; if an option raised the error, only the words of that error."""
    lines = [line.strip(" │╰╯") for line in box.splitlines()[1:]]  # without the title
    parts = itertools.groupby(lines, key=lambda line: set(line) <= {"─", "-"})
    message = "; ".join(" ".join(part) for is_rule, part in parts if not is_rule)
    message = re.sub(r"\.; Got errors: .*(?=; Argument helptext)", "", message)  # which name types, not options
    if choice := re.search(r"invalid choice ('.*?') for argument '--(\S+)'. Expected one of \((.*?)\)", message):
        words = ", ".join(sorted({*re.findall(r"'(\w[^']*)'", choice[3])} - {"None"}))
        return f"{choice[2].replace('-', '_')}={choice[1]} must be one of {words}"
    if choice := re.match(r"Error parsing --(\S+): no type matching \{(.*?)\} .*? from \[(.*?)\]", message):
        return f"{choice[1].replace('-', '_')}={choice[3]} must be one of {choice[2].replace(',', ', ')}"
    own = re.fullmatch(r"Error parsing [\w.]+: (.*?); For full helptext.*", message, re.DOTALL)
    return own[1] if own else message


def guarded(work: Callable[[], int]) -> int:
    """Do the work of a process and return its exit code; bad input becomes one line on stderr, never a traceback."""
    log_to_stderr(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # labels in any script
    try:
        with processes.reraise_lost_signals(), processes.interrupted_by_term():
            code = work()
        if sys.stdout is not None:  # None if it is closed
            sys.stdout.flush()
        return code
    except TransferLensError as error:
        say(str(error), error=True)
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = None  # its reader has ended, as of `| head`
        return DONE
    except OSError as error:
        say(f"{error.filename or 'output'}: {error.strerror or error}", error=True)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not processes.is_out_of_memory(error):
            raise
        say("there is too little memory: free some, or take smaller mini-batches", error=True)
        return BAD_INPUT
    except ImportError as error:  # too little memory to load a library, too, or a damaged one
        say(f"a library cannot be loaded: {error}", error=True)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("interrupted: all finished epochs are kept, the same command goes on from there\n")
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)


@dataclass(frozen=True, eq=False)
class Command:
    """A command: called with arguments, it returns an exit code; `run` takes an instance of `options`.

    Attributes
    ----------
    name : str
        As in ``python -m transferlens.<name>``, or the full name of a module.
    options : type
        A dataclass; each field is an option.
    work : Question or callable
        A question, or a function from options to exit code.
    default : instance of `options`, optional
        Values of the options that are not given. Default: those of the dataclass.
    arms : callable, optional
        If `work` is a function that trains: options to the arms that it needs.
    """

    name: str
    options: type
    work: Question | Callable[[Any], int]
    default: Any = None
    arms: Callable[[Any], Mapping[Any, Arm]] | None = None

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Parse the arguments, by default those of the process, and do the work."""
        return guarded(lambda: self.run(parse(self.options, argv, prog=self.name, default=self.default)))

    def run(self, options: Any) -> int:
        """Do the work: of a question, write and print the answer; with --dry-run, print which runs are missing."""
        if not isinstance(self.work, Question):
            return self.work(options)
        output = flat(options.output)
        if "figures" in output:
            check_writable("figures", output["figures"])
        if output.get("out"):
            check_new("out", output["out"], *getattr(self.options, "ENDINGS", (".csv",)))
        if output.get("dry_run"):
            say(forecast.text(planned(self.points(options))))
            return DONE
        result = self.work.answer(options)
        look = {"width": output["figure_width"], "titles": output["titles"]} if "titles" in output else {}
        written = result.write(output["figures"], **look) if "figures" in output else []
        if "out" in output:
            result.save(output["out"])
            written = [output["out"]] if output["out"] else []
        else:
            say(result.summary())
        if written:
            say(f"written: {some(written)}")
        for problem in result.problems:
            say(problem, error=True)
        return result.exit_code

    def points(self, options: Any) -> Mapping[Any, Arm]:
        """Return the arms that the command needs, none if it trains nothing; raise if they cannot be trained."""
        arms = self.work.needed if isinstance(self.work, Question) else self.arms
        return {} if arms is None else arms(options)


def load(name: str) -> Command:
    """Return the command with a name of `COMMANDS`."""
    return importlib.import_module(f"transferlens.{name}").main


def command(name: str, options: type, work: Question | Callable[[Any], int]) -> Command:
    """Return the command of a module; if its work is a question, the module can be called as a function."""
    module = sys.modules.get(f"transferlens.{name}")
    if isinstance(work, Question) and module is not None:
        module.__class__ = _Asked
    return Command(name, options, work)


class _Asked(types.ModuleType):
    """A module of one question, called as the question: ``tl.truncate("clips.csv")``."""

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
        return f"{vars(self)['__doc__'].rstrip()}\n\n{self._question.describe()}"
