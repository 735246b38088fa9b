"""A whole study from one file: the commands it names, one after the other, in one store.

The file is TOML. ``[all]`` holds options of all commands, each ``[[run]]`` a command and its own options, named as on
the command line. Runs that several commands ask for are trained once. ``analyses/paper.toml`` is the paper's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlens import cli
from transferlens.options import OutputOptions
from transferlens.store.config import Training
from transferlens.training import forecast
from transferlens.training.schedule import ExecutionOptions
from transferlens.training.sweep import StoreOptions, planned
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import Fields, build, flat, names, optional

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from transferlens.options import OutputOptions as Output
    from transferlens.store.config import Training as Threads
    from transferlens.training.schedule import ExecutionOptions as Execution
    from transferlens.training.sweep import StoreOptions as Store
else:
    words = "Default: that of each command."
    Execution, Store, Output = (optional(kind, words=words) for kind in (ExecutionOptions, StoreOptions, OutputOptions))
    Threads = optional(Training, ["threads"])


@dataclass(frozen=True, kw_only=True)
class Overrides(Fields):
    """Options that replace those of many commands: where runs are computed and kept."""

    execution: Execution = Execution()
    store: Store = Store()
    output: Output = Output()
    training: Threads = Threads()
    dry_run: bool = False
    """Print which runs are missing, how long they take and what disk they need, and train nothing."""


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    """Run a whole study; with --dry-run, print what it takes."""

    config: Path
    """TOML file: [all] with options of all commands, and a [[run]] for each command."""


@dataclass(frozen=True)
class Step:
    """A command of a study, with its options.

    Attributes
    ----------
    command : Command
    options : instance of the command's options
    words : str
        Which options were given.
    """

    command: cli.Command
    options: Any
    words: str = ""

    @classmethod
    def of(cls, command: cli.Command, values: Mapping[str, Any] | None = None) -> Step:
        """Return a command with options by name, where they differ from its defaults."""
        return cls(command, build(command.options, values or {}, base=command.default), _words(values or {}))

    def given(self, values: Mapping[str, Any]) -> Step:
        """Return the step with those of these options that the command has, but for None, in place of its own."""
        before = flat(self.options)
        known = {name: value for name, value in values.items() if name in before and value is not None}
        options = build(self.command.options, known, base=self.options)
        changed = {name: value for name, value in flat(options).items() if value != before[name]}
        return replace(self, options=options, words=f"{self.words} {_words(changed)}".strip())

    def ids(self) -> list[str]:
        """Return the runs that the step needs."""
        return [point.id for arm in self.command.points(self.options).values() for point in arm.points]


def _words(values: Mapping[str, Any]) -> str:
    """Options as on the command line."""
    several = {name: value if isinstance(value, (list, tuple)) else [value] for name, value in values.items()}
    return " ".join(f"--{name.replace('_', '-')} {' '.join(map(str, each))}" for name, each in several.items())


def handed_on(options: Any, *own: str) -> dict[str, Any]:
    """Return a script's options as its commands are given them: all that have a value, but those of its `own`."""
    return {name: value for name, value in flat(options).items() if value is not None and name not in (*own, "dry_run")}


# -------------------------------------------------------------------------------------------------- files


def read(path: Path) -> list[Step]:
    """Return the steps of a study.

    Raises
    ------
    ParameterError
        Naming what in the file is against the rules.
    """
    where = f"config={str(path)!r}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ParameterError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{where} is not TOML: {error}") from error
    shared, steps = content.get("all", {}), content.get("run", [])
    tables = [shared, *steps] if isinstance(steps, list) else [None]
    if content.keys() - {"all", "run"} or not steps or not all(isinstance(table, dict) for table in tables):
        raise ParameterError(f"{where} must hold one [all] at most and [[run]] at least once, nothing else")
    shared = _spelled(shared, f"{where}: [all]")
    found, problems = [], []
    for number, step in enumerate(steps, start=1):
        try:
            found.append(_step(step, shared, f" of [[run]] {number}"))
        except ParameterError as error:
            problems.append(str(error))
    if problems:
        raise ParameterError(f"{where}: {'; '.join(problems)}")
    everywhere = set().union(*(names(step.command.options) for step in found))
    if unknown := sorted(shared.keys() - everywhere):
        raise ParameterError(f"{where}: no command of it has the option {unknown[0]!r} of [all]")
    return found


def _step(table: Mapping[str, Any], shared: Mapping[str, Any], number: str) -> Step:
    """One [[run]] of a study file."""
    name = table.get("command")
    if not isinstance(name, str) or name not in cli.COMMANDS or name == "study":
        allowed = ", ".join(name for name in cli.COMMANDS if name != "study")
        raise ParameterError(f"command={name!r}{number} must be one of {allowed}")
    command = cli.load(name)
    where = f"{name}{number}"
    own = _spelled({key: value for key, value in table.items() if key != "command"}, where)
    if unknown := sorted(own.keys() - set(names(command.options))):
        raise ParameterError(f"{where} has no option {unknown[0]!r}")
    try:
        known = {key: value for key, value in shared.items() if key in names(command.options)}
        return Step.of(command, known | own)
    except ParameterError as error:
        raise ParameterError(f"{where}: {error}") from None


def _spelled(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options with underscores in their names."""
    spelled = {name.replace("-", "_"): value for name, value in options.items()}
    if len(spelled) < len(options):
        raise ParameterError(f"{where} has an option in two spellings")
    return spelled


# ------------------------------------------------------------------------------------------------ commands


def check(steps: Sequence[Step]) -> None:
    """Raise what would stop a step before the first of them trains anything.

    Raises
    ------
    ParameterError
        Naming all of it.
    """
    problems: dict[str, list[str]] = {}
    for step in steps:
        try:
            step.command.points(step.options)
        except TransferLensError as error:
            problems.setdefault(str(error), []).append(step.command.name)
    if problems:
        raise ParameterError("; ".join(f"{', '.join(each)}: {problem}" for problem, each in problems.items()))


def plan(steps: Sequence[Step]) -> str:
    """Return what the missing runs of all steps take, as text."""
    return forecast.text([row for step in steps for row in planned(step.command.points(step.options))])


def perform(steps: Sequence[Step], *, dry_run: bool = False, step: Callable[[Step], int] | None = None) -> int:
    """Do steps one after the other and return the largest exit code; with `dry_run`, print what they take.

    What would stop one of them is raised before the first. A run that fails stops no other step; bad input does.
    """
    check(steps)
    if dry_run:
        print(plan(steps))
        return cli.DONE
    worst = cli.DONE
    for each in steps:
        print(f"== {each.command.name} {each.words}".rstrip(), flush=True)
        worst = max(worst, code := (step or _run)(each))
        if code not in (cli.DONE, cli.FOUND, cli.SOME_FAILED):
            break
    return worst


def _run(step: Step) -> int:
    return step.command.run(step.options)


def work(options: Options) -> int:
    """Read the file, and do its commands; a run that fails stops no other command."""
    given = handed_on(options, "config")
    return perform([step.given(given) for step in read(options.config)], dry_run=options.dry_run)


main = cli.command("study", Options, work)

if __name__ == "__main__":
    sys.exit(main())
