"""One dataclass in, one exit code out: how every command parses its options and reports bad input."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from transferlens import processes
from transferlens.errors import DryRun, TransferLensError

__all__ = ["DONE", "FOUND", "BAD_INPUT", "SOME_FAILED", "command", "parse", "table"]

# What a command exits with.
DONE, FOUND, BAD_INPUT, SOME_FAILED = 0, 1, 2, 3

Options = TypeVar("Options")
Main = Callable[[Sequence[str] | None], int]


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
    SystemExit
        With code 2 where an argument cannot be parsed, with 0 after ``--help``.
    """
    return tyro.cli(
        options,
        prog=f"transferlens {prog}",
        args=argv,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as text, each column as wide as its widest cell; columns that hold numbers are set to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1].isdigit() for cell in column[1:]) for column in columns]
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def command(main: Main) -> Main:
    """Wrap a ``main(argv) -> int`` so that bad input is one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("transferlens").setLevel(logging.INFO)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # labels in any script, terminals in any encoding
        try:
            with processes.insisting():
                code = main(argv)
            sys.stdout.flush()
            return code
        except DryRun as planned:
            print(planned)
            return DONE
        except TransferLensError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            sys.stdout = None  # who reads the output has gone
            return DONE
        except OSError as error:
            print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
            return BAD_INPUT
        except KeyboardInterrupt:
            print("interrupted: all finished epochs are kept, the same command goes on from there", file=sys.stderr)
            return 130

    return run
