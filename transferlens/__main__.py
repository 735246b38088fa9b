"""`transferlens <command>` and `python -m transferlens <command>`: every command under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from transferlens import __version__, cli


def _usage() -> str:
    lines = [
        f"transferlens {__version__}: what ImageNet-pretrained CNNs bring to audio, and where it sits",
        "",
    ]
    lines += [
        "usage: transferlens COMMAND [options]      (the same: python -m transferlens.COMMAND [options])",
        "",
    ]
    lines += [f"  {name:<12} {what}" for name, what in cli.COMMANDS.items()]
    return "\n".join([*lines, "", "transferlens COMMAND --help explains a command's options."])


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the rest of the line to the command named first."""
    return cli.guarded(lambda: _dispatched(list(sys.argv[1:] if argv is None else argv)))


def _dispatched(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return cli.DONE if arguments else cli.BAD_INPUT
    if arguments[0] == "--version":
        print(__version__)
        return cli.DONE
    if arguments[0] not in cli.COMMANDS:
        print(f"error: command {arguments[0]!r} must be one of {', '.join(cli.COMMANDS)}", file=sys.stderr)
        return cli.BAD_INPUT
    return cli.load(arguments[0])(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
