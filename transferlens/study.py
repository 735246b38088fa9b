"""A whole study from one file: its commands run one after the other, on one run store.

The file is TOML: ``[all]`` holds options of all commands; each ``[[run]]`` holds a command and its own options, named
as on the command line. Runs that several commands need are trained once. ``analyses/paper.toml`` is the paper's study.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlens import cli
from transferlens.options import DryRunOptions, FigureOptions
from transferlens.training import forecast
from transferlens.training.presets import TrainingOptions
from transferlens.training.schedule import ExecutionOptions
from transferlens.training.sweep import Arm, StoreOptions, planned
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import build, flat, names, optional
from transferlens.util.files import check_writable
from transferlens.util.grouping import group_by
from transferlens.util.once import remembered
from transferlens.util.terminal import say
from transferlens.util.text import some, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from transferlens.options import OutputOptions as Output
    from transferlens.training.presets import TrainingOptions as Threads
    from transferlens.training.schedule import ExecutionOptions as Execution
    from transferlens.training.sweep import StoreOptions as Store
else:
    Execution, Store, Output = map(optional, (ExecutionOptions, StoreOptions, FigureOptions))
    Threads = optional(TrainingOptions, ["threads"])


@dataclass(frozen=True, kw_only=True)
class Overrides(DryRunOptions):
    """Options that replace those of all commands: where runs are computed and kept."""

    execution: Execution = Execution()
    store: Store = Store()
    output: Output = Output()
    training: Threads = Threads()


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    """Run the commands of a study file one after the other; with --dry-run, print which runs they need.

    Other options than --config replace those of all commands; without them, each command uses its own.
    """

    config: Path
    """TOML file: [all] with options of all commands, and one [[run]] per command."""


@dataclass(frozen=True)
class Step:
    """A command of a study with its options, those that were `named`, and its `place` in a study file."""

    command: cli.Command
    options: Any
    named: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @classmethod
    def of(cls, command: cli.Command, values: Mapping[str, Any] | None = None, *, place: str = "") -> Step:
        """Return the step of a command with values by name, and defaults otherwise; errors as in `fields.build`."""
        return cls(command, build(command.options, values or {}, base=command.default), values or {}, place)

    def given(self, values: Mapping[str, Any]) -> Step:
        """Return the step with other values, by name; None, and names that are not its options, are ignored."""
        before = flat(self.options)
        known = {name: value for name, value in values.items() if name in before and value is not None}
        options = build(self.command.options, known, base=self.options)
        changed = {name: value for name, value in flat(options).items() if value != before[name]}
        return replace(self, options=options, named={**self.named, **changed})

    def points(self) -> Mapping[Any, Arm]:
        """Return the arms that the step needs; raise TransferLensError if they cannot be trained."""
        return self.command.points(self.options)

    def run(self) -> int:
        """Run the command, and return its exit code."""
        return self.command.run(self.options)


def _words(values: Mapping[str, Any]) -> str:
    """Return options as they are written on the command line."""
    words = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            several = value if isinstance(value, (list, tuple)) else [value]
            words.append(" ".join([f"--{option}", *map(str, several)]))
    return " ".join(words)


def handed_on(options: Any, *own: str) -> dict[str, Any]:
    """Return the options that a script passes to its commands: all that are not None, except those named in `own`."""
    return {name: value for name, value in flat(options).items() if value is not None and name not in (*own, "dry_run")}


def read(path: Path) -> list[Step]:
    """Return the steps of a study file; raise one ParameterError if it is not a study or has wrong options."""
    where = f"config={str(path)!r}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ParameterError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{where} is not TOML: {error}") from error
    shared, runs = content.get("all", {}), content.get("run", [])
    tables = [shared, *runs] if isinstance(runs, list) else [None]
    if unknown := sorted(content.keys() - {"all", "run"}):
        hint = suggestion(unknown[0], ["all", "run"], "options belong in one of them")
        raise ParameterError(f"{where} has {unknown[0]!r} besides [all] and [[run]]: {hint}")
    if not runs or not all(isinstance(table, dict) for table in tables):
        raise ParameterError(f"{where} must contain [[run]], in double brackets, at least once, and [all] at most once")
    shared = _spelled(shared, f"{where}: [all]")
    steps, problems = [], []
    for number, table in enumerate(runs, start=1):
        try:
            steps.append(_step(table, shared, f"[[run]] {number}"))
        except ParameterError as error:
            problems.append(str(error))
    if problems:
        raise ParameterError(f"{where}: {'; '.join(problems)}")
    known = {name for step in steps for name in names(step.command.options)}
    if unknown := sorted(shared.keys() - known):
        hint = suggestion(unknown[0], known, f"their options are {', '.join(sorted(known))}")
        raise ParameterError(f"{where}: none of its commands has the option {unknown[0]!r} of [all]: {hint}")
    return steps


def _step(table: Mapping[str, Any], shared: Mapping[str, Any], number: str) -> Step:
    """Return the step of one [[run]]."""
    name = table.get("command")
    allowed = [command for command in cli.COMMANDS if command != "study"]
    if name not in allowed:
        words = ", ".join(allowed)
        problem = f"{number} has no command" if name is None else f"unknown command {name!r} in {number}"
        raise ParameterError(f"{problem}: {suggestion(name, allowed, f'name one of {words}')}")
    command, where = cli.load(name), f"{name} of {number}"
    known = names(command.options)
    own = _spelled({key: value for key, value in table.items() if key != "command"}, where)
    if unknown := sorted(own.keys() - set(known)):
        hint = suggestion(unknown[0], known, f"its options are {', '.join(known)}")
        raise ParameterError(f"{where} has no option {unknown[0]!r}: {hint}")
    try:
        return Step.of(command, {key: value for key, value in shared.items() if key in known} | own, place=where)
    except ParameterError as error:
        raise ParameterError(f"{where}: {error}") from None


def _spelled(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Replace hyphens in the names of options by underscores."""
    spelled = {name.replace("-", "_"): value for name, value in options.items()}
    if len(spelled) < len(options):
        raise ParameterError(f"{where} has an option in two spellings, with - and with _: remove one")
    return spelled


def check(steps: Sequence[Step]) -> dict[Any, Arm]:
    """Return the arms that the steps need, by the step's number and their name; nothing is trained.

    Raise one ParameterError with the problems of all steps, if there are any.
    """
    arms: dict[Any, Arm] = {}
    problems: list[tuple[str, str]] = []
    made: set[Path] = set()  # run files of earlier steps
    for number, step in enumerate(steps):
        try:
            values = flat(step.options)
            for name in [name for name in ("figures", "out", "cache") if name in values]:
                check_writable(name, values[name])
            files = values.get("ckpt", ())
            files = [files] if isinstance(files, Path) else files
            if missing := [path for path in files if not path.exists() and path.resolve() not in made]:
                raise ParameterError(f"ckpt={some(missing)} does not exist, and no earlier step trains it")
            for name, arm in step.points().items():
                arms[number, name] = arm
                made |= {point.path(arm.study.options.store.runs).resolve() for point in arm.points}
        except TransferLensError as error:
            problems.append((str(error), step.place or step.command.name))
    if problems:
        by_error = group_by(problems, key=lambda problem: problem[0])
        raise ParameterError("; ".join(f"{', '.join(n for _, n in each)}: {e}" for e, each in by_error.items()))
    return arms


def perform(steps: Sequence[Step], *, dry_run: bool = False, step: Callable[[Step], int] = Step.run) -> int:
    """Run all steps in order and return the largest exit code; with `dry_run`, only print which runs they need.

    All steps are checked before the first one is run. The next steps are still run after failed runs, but not after
    bad input. `step` is the function that runs one step and returns its exit code.
    """
    with remembered():
        arms = check(steps)
    if dry_run:
        say(forecast.text(planned(arms)))
        return cli.DONE
    worst = cli.DONE
    for each in steps:
        say(f"== {each.command.name} {_words(each.named)}".rstrip(), flush=True)
        worst = max(worst, code := step(each))
        if code not in (cli.DONE, cli.FOUND, cli.SOME_FAILED):
            break
    return worst


def script(name: str, options: type, steps: Sequence[Step]) -> cli.Command:
    """Return the command of a script that runs several steps and hands its options on to them."""

    def work(given: Any) -> int:
        usual = handed_on(options())  # steps have their own
        changed = {name: value for name, value in handed_on(given).items() if value != usual.get(name)}
        return perform([step.given(changed) for step in steps], dry_run=given.output.dry_run)

    return cli.Command(name, options, work)


def work(options: Options) -> int:
    """Run the commands of the study file."""
    given = handed_on(options, "config")
    return perform([step.given(given) for step in read(options.config)], dry_run=options.dry_run)


main = cli.command("study", Options, work)

if __name__ == "__main__":
    sys.exit(main())
