"""Text for people: tables, lists of names, the order of names, and text that came from files made harmless."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

MOST_NAMES = 50
# Characters that end lines or control terminals, and halves of characters: no name has them.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Besides them, those that reverse the order of the text that follows.
_ESCAPED = re.compile(f"{CONTROL.pattern[:-1]}\u202a-\u202e\u2066-\u2069]")
_MARKDOWN = re.compile(r"[\\|`<*~$]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")


def printable(text: str, *, keep: str = "") -> str:
    """Return text for a terminal: characters that could control it as escapes, except for some to `keep`.

    Examples
    --------
    >>> print(printable("dog\\x1b[2J"))
    dog\\x1b[2J
    """
    return _ESCAPED.sub(lambda c: c[0] if c[0] in keep else c[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """Return text for a cell of a Markdown table: nothing in it is a link, HTML, another cell or a style.

    Examples
    --------
    >>> print(markdown("a|b <img> test_resnet"))
    a\\|b \\<img> test_resnet
    """
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def shortened(name: str, most: int = 48) -> str:
    """Return a name for a figure, of at most `most` characters: the middle of a longer one is left out.

    Examples
    --------
    >>> shortened("fold1/a-recording-of-a-siren.wav", 20)
    'fold1/a-r...iren.wav'
    """
    name = printable(name)
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[: most - 3 - half]}...{name[-half:]}"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as text, each column as wide as its widest cell, columns of numbers aligned to the right.

    The first row is the header.

    Examples
    --------
    >>> print(table([("run", "epochs"), ("a", 12), ("b", 5)]))
    run  epochs
    a        12
    b         5
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1].isdigit() for cell in column[1:]) for column in columns]
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def some(names: Iterable[object]) -> str:
    """Return names in one line: the first 50, and how many more there are."""
    words = [str(name) for name in names]
    more = f" and {len(words) - MOST_NAMES} more" if len(words) > MOST_NAMES else ""
    return ", ".join(words[:MOST_NAMES]) + more


def suggestion(word: object, words: Iterable[str], otherwise: str) -> str:
    """Return a question for the nearest of the words that are allowed, or another text if none is near."""
    near = difflib.get_close_matches(str(word).lower(), list(words), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def counted(n: int, noun: str) -> str:
    """Return a number with its noun in singular or plural."""
    return f"{n} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def span(low: float, high: float, digits: int = 1) -> str:
    """Return an interval in words; "none" if it has no bounds."""
    return f"{low:.{digits}f} to {high:.{digits}f}" if low <= high else "none"


def natural(name: str) -> list[tuple[bool, int, str, str]]:
    """Return a key that sorts "2" before "10", and numbers before words."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    digits = [part.lstrip("0") if part.isdecimal() else None for part in parts]
    # Numbers as text, by length first: int() refuses very long ones.
    return [(n is None, len(n or ""), n or "", part) for n, part in zip(digits, parts, strict=True)]
