"""A whole study from one file: the commands it names, one after the other, in one store.

The file is TOML. ``[all]`` holds options of all commands, each ``[[run]]`` a command and its own options, named as on
the command line. Runs that several commands ask for are trained once. ``analyses/paper.toml`` is the paper's.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from transferlens import cli
from transferlens.training import forecast
from transferlens.util.errors import DryRun, ParameterError, TransferLensError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["EngineOptions", "Options", "Step", "check", "ids", "main", "perform", "plan", "read", "script"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of what does many commands: who trains the runs."""

    device: str | None = None
    """As for `train`; so are the following."""
    engine: Literal["local", "ray"] | None = None
    """local or ray."""
    workers: int | None = None
    """local: runs trained at once."""
    threads: int | None = None
    """Threads of a run."""
    address: str | None = None
    """ray: address of the cluster's head, or auto."""
    gpus_per_run: float | None = None
    """ray: share of a GPU that a run takes."""
    dry_run: bool = False
    """Say which runs are missing, how long they take and what disk they need, and train nothing."""

    def given(self, *own: str) -> dict[str, Any]:
        """The options to hand to the commands: all that have a value but `own` ones and dry_run."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in (*own, "dry_run")}
        numbers = (bool, int, float)
        return {n: v if isinstance(v, numbers) else str(v) for n, v in values.items() if v is not None}


@dataclass(frozen=True, kw_only=True)
class Options(EngineOptions):
    """Run a whole study, or with --dry-run say what it takes."""

    config: Path
    """TOML file: [all] with options of all commands, and a [[run]] for each command."""
    runs: Path | None = None
    """Folder of the run store, instead of the file's."""
    cache: Path | None = None
    """Folder of the feature caches, instead of the file's."""
    figures: Path | None = None
    """Folder of the figures, instead of the file's."""


@dataclass(frozen=True)
class Step:
    """A command of a study.

    Attributes
    ----------
    command : str
        Of `cli.COMMANDS`, or a module with `Options` and `main`, by its full name.
    options : mapping of str to bool, number, str or list
    """

    command: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> Any:
        """What does it."""
        return importlib.import_module(self.command if "." in self.command else f"transferlens.{self.command}")

    @property
    def known(self) -> set[str]:
        """The options that it has."""
        return {each.name for each in fields(self.module.Options)}

    def given(self, options: Mapping[str, Any]) -> Step:
        """With those of these options that the command has, instead of its own."""
        return Step(self.command, {**self.options, **{n: value for n, value in options.items() if n in self.known}})

    def check(self) -> None:
        """Refuse values that the command cannot take.

        Raises
        ------
        ParameterError
            Naming one.
        """
        usual = {each.name: each.default for each in fields(self.module.Options)}
        for name, value in self.options.items():
            values = value if isinstance(value, list) else [value]
            if isinstance(value, bool) is not isinstance(usual[name], bool):
                rule = "true or false" if isinstance(usual[name], bool) else "no true or false"
                raise ParameterError(f"{name}={value!r} must be {rule}")
            if any(not isinstance(each, (bool, int, float, str)) for each in values):
                raise ParameterError(f"{name}={value!r} must be a number, a text, or a list of them")
            if any(re.match(r"--|-[a-zA-Z]|.*\0", each) for each in values if isinstance(each, str)):
                raise ParameterError(f"{name}={value!r} must not look like an option, or hold a zero byte")
            if any(abs(each) > 2**63 for each in values if isinstance(each, int)):
                raise ParameterError(f"{name} must be at most 2**63")
        cli.parse(self.module.Options, self.argv(), prog=self.command)

    def argv(self) -> list[str]:
        """As on the command line."""
        words: list[str] = []
        usual = {each.name: each.default for each in fields(self.module.Options)}
        for name, value in self.options.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                # A flag says what is not so by default.
                words += [] if value is usual[name] else [f"--{flag}" if value else f"--no-{flag}"]
            else:
                words += [f"--{flag}", *(str(each) for each in (value if isinstance(value, list) else [value]))]
        return words


def read(path: Path) -> list[Step]:
    """The steps of a study.

    Raises
    ------
    ParameterError
        Naming what in the file is against the rules.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ParameterError(f"config={str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"config={str(path)!r} is no TOML: {error}") from error
    shared, steps = content.get("all", {}), content.get("run", [])
    tables = [shared, *steps] if isinstance(steps, list) else [None]
    if content.keys() - {"all", "run"} or not steps or not all(isinstance(table, dict) for table in tables):
        raise ParameterError(
            f"config={str(path)!r} must hold one [all] at most and [[run]] at least once, nothing else"
        )
    found = []
    for number, step in enumerate(steps, start=1):
        command = step.get("command")
        if not isinstance(command, str) or command not in cli.COMMANDS or command == "study":
            raise ParameterError(
                f"config={str(path)!r}: command={command!r} of [[run]] {number} must be one of "
                f"{', '.join(name for name in cli.COMMANDS if name != 'study')}"
            )
        named = Step(command)
        own = {name.replace("-", "_"): value for name, value in step.items() if name != "command"}
        if len(own) < len(step) - 1:
            raise ParameterError(f"config={str(path)!r}: {command} of [[run]] {number} has an option in two spellings")
        if unknown := sorted(own.keys() - named.known):
            raise ParameterError(f"config={str(path)!r}: {command} of [[run]] {number} has no option {unknown[0]!r}")
        usual = {name.replace("-", "_"): value for name, value in shared.items()}
        if len(usual) < len(shared):
            raise ParameterError(f"config={str(path)!r}: [all] has an option in two spellings")
        found.append(named.given(usual | own))
        try:
            found[-1].check()
        except ParameterError as error:
            raise ParameterError(f"config={str(path)!r}: {command} of [[run]] {number}: {error}") from None
    everywhere = set().union(*(step.known for step in found))
    if unknown := sorted(name for name in shared if name.replace("-", "_") not in everywhere):
        raise ParameterError(f"config={str(path)!r}: no command of it has the option {unknown[0]!r} of [all]")
    return found


def perform(steps: Sequence[Step], argv: Sequence[str] = ()) -> int:
    """Do steps one after the other, each with these words behind its own, and return the largest exit code.

    A run that fails stops no other step; bad input and Ctrl-C do.
    """
    worst = cli.DONE
    for step in steps:
        print(f"== {step.command} {' '.join([*step.argv(), *argv])}", flush=True)
        worst = max(worst, code := step.module.main([*step.argv(), *argv]))
        if code not in (cli.DONE, cli.FOUND, cli.SOME_FAILED):
            break
    return worst


def _planned(step: Step, argv: Sequence[str] = ()) -> DryRun | None:
    """What a step would train, with these words behind its own; None where it trains nothing."""
    if "dry_run" in step.known:
        try:
            step.module.main.__wrapped__([*step.given({"dry_run": True}).argv(), *argv])
        except DryRun as planned:
            return planned
    return None


def ids(step: Step) -> list[str]:
    """The runs that a step needs; none where it trains nothing."""
    planned = _planned(step)
    return planned.ids if planned else []


def plan(step: Step) -> list[forecast.Planned]:
    """What each of the runs that a step needs has before it."""
    planned = _planned(step)
    return planned.rows() if planned else []


def check(steps: Sequence[Step], argv: Sequence[str] = ()) -> None:
    """Refuse what steps cannot do, with these words behind their own, before the first of them trains anything.

    Raises
    ------
    ParameterError
        Naming all of it.
    """
    problems: dict[str, list[str]] = {}
    for step in steps:
        try:
            cli.parse(step.module.Options, [*step.argv(), *argv], prog=step.command)
            _planned(step, argv)
        except TransferLensError as error:
            problems.setdefault(str(error), []).append(step.command)
    if problems:
        raise ParameterError("; ".join(f"{', '.join(names)}: {problem}" for problem, names in problems.items()))


def script(steps: Sequence[Step]) -> cli.Main:
    """A command that does steps; options given are handed to each."""

    @cli.command
    def main(argv: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if argv is None else argv
        check(steps, words)
        return perform(steps, words)

    return main


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the file, do its commands; a run that fails stops no other command."""
    options = cli.parse(Options, argv, prog="study")
    given = options.given("config")
    steps = [step.given(given) for step in read(options.config)]
    for step in steps:
        step.check()
    check(steps)
    if options.dry_run:
        print(forecast.text([row for step in steps for row in plan(step)]))
        return cli.DONE
    return perform(steps)


if __name__ == "__main__":
    sys.exit(main())
