"""`transferlens <command>` and `python -m transferlens <command>`: all commands under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from transferlens import __version__, cli
from transferlens.util.errors import ParameterError
from transferlens.util.text import suggestion


def _usage() -> str:
    commands = "\n".join(f"  {name:<12} {answer}" for name, answer in cli.COMMANDS.items())
    return f"""\
transferlens {__version__}: what ImageNet-pretrained CNNs bring to audio, and where in the network it sits

usage: transferlens COMMAND [options]      (the same: python -m transferlens.COMMAND [options])

{commands}

transferlens COMMAND --help explains the options of a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first with the other arguments."""
    return cli.guarded(lambda: _dispatched(list(sys.argv[1:] if argv is None else argv)))


def _dispatched(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return cli.DONE if arguments else cli.BAD_INPUT
    if arguments[0] == "--version":
        print(__version__)
        return cli.DONE
    if arguments[0] not in cli.COMMANDS:
        hint = suggestion(arguments[0], cli.COMMANDS, f"the commands are {', '.join(cli.COMMANDS)}")
        raise ParameterError(f"unknown command {arguments[0]!r}: {hint}")
    return cli.load(arguments[0])(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
