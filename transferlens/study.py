"""A whole study from one file: the commands it names, one after the other, in one store.

The file is TOML. ``[all]`` holds options of all commands, each ``[[run]]`` a command and its own options, named as on
the command line. Runs that several commands ask for are trained once. ``analyses/paper.toml`` is the paper's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from transferlens import cli, planning
from transferlens.errors import DryRun, ParameterError, SweepError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Options", "Step", "main", "read"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run a whole study, or with --dry-run say what it takes."""

    config: Path
    """TOML file: [all] with options of all commands, and a [[run]] for each command."""
    dry_run: bool = False
    """Say which runs are missing, how long they take and what disk they need, and train nothing."""
    runs: Path | None = None
    """Folder of the run store, instead of the file's."""
    cache: Path | None = None
    """Folder of the feature caches, instead of the file's."""
    figures: Path | None = None
    """Folder of the figures, instead of the file's."""
    device: str | None = None
    """As for `train`, instead of the file's; so are the following."""
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


@dataclass(frozen=True)
class Step:
    """A command of a study.

    Attributes
    ----------
    command : str
    options : mapping of str to bool, number, str or list
    """

    command: str
    options: Mapping[str, Any]

    def argv(self) -> list[str]:
        """As on the command line."""
        words: list[str] = []
        usual = {field.name: field.default for field in fields(_module(self.command).Options)}
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
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"config={str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
        if command not in cli.COMMANDS or command == "study":
            raise ParameterError(
                f"config={str(path)!r}: command={command!r} of [[run]] {number} must be one of "
                f"{', '.join(name for name in cli.COMMANDS if name != 'study')}"
            )
        known = {field.name for field in fields(_module(command).Options)}
        own = {name.replace("-", "_"): value for name, value in step.items() if name != "command"}
        if unknown := sorted(own.keys() - known):
            raise ParameterError(f"config={str(path)!r}: {command} of [[run]] {number} has no option {unknown[0]!r}")
        usual = {name.replace("-", "_"): value for name, value in shared.items()}
        found.append(Step(command, {name: value for name, value in (usual | own).items() if name in known}))
    everywhere = {field.name for step in found for field in fields(_module(step.command).Options)}
    if unknown := sorted(name for name in shared if name.replace("-", "_") not in everywhere):
        raise ParameterError(f"config={str(path)!r}: no command of it has the option {unknown[0]!r} of [all]")
    return found


def _module(command: str) -> Any:
    return importlib.import_module(f"transferlens.{command}")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the file, do its commands; a run that fails stops no other command."""
    options = cli.parse(Options, argv, prog="study")
    given = {
        field.name: value if isinstance(value, (bool, int, float)) else str(value)
        for field in fields(options)
        if field.name not in ("config", "dry_run") and (value := getattr(options, field.name)) is not None
    }
    planned: list[planning.Planned] = []
    failures: list[str] = []
    for step in read(options.config):
        module = _module(step.command)
        known = {field.name for field in fields(module.Options)}
        if options.dry_run and "dry_run" not in known:
            continue  # it trains nothing
        extra = given | ({"dry_run": True} if options.dry_run else {})
        mine = Step(step.command, step.options | {name: value for name, value in extra.items() if name in known})
        if not options.dry_run:
            print(f"== {step.command} {' '.join(mine.argv())}", flush=True)
        try:
            module.main.__wrapped__(mine.argv())
        except DryRun as found:
            planned += found.rows
        except SweepError as error:
            failures.append(f"{step.command}: {error}")
    if options.dry_run:
        print(planning.text(planned))
    if failures:
        raise SweepError("; ".join(failures))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
