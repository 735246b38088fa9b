"""Texts for people."""

import math

import pytest

from transferlens.util.text import counted, markdown, printable, some, span, suggestion, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (some("abc"), "a, b, c"),
        (some(range(52)), f"{', '.join(map(str, range(50)))} and 2 more"),
        (suggestion("blok", ["block", "folds"], "none"), "did you mean 'block'?"),
        (suggestion("x", ["block", "folds"], "none"), "none"),
        (counted(1, "fold"), "1 fold"),
        (counted(2, "fold"), "2 folds"),
        (counted(2, "class"), "2 classes"),
        (span(1, 2.25), "1.0 to 2.2"),
        (span(math.nan, math.nan), "none"),
    ],
)
def test_texts(text, expected):
    assert text == expected


HOSTILE = "".join(
    map(chr, [*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)


def test_nothing_that_controls_a_terminal_is_printed():
    assert printable(HOSTILE).isascii() and printable(HOSTILE).isprintable()
    assert printable("a\tb\nc\r", keep="\n\t") == "a\tb\nc\\r"
    assert printable("\x1b[31m\u202edog\udcff") == "\\x1b[31m\\u202edog\\udcff"
    plain = "Löwe, مرحبا, 犬, 👩\u200d🚒, a_b (50 %)"  # with the joiner of an emoji
    assert printable(plain) == plain
    assert table([("name", "n"), ("a\x1b\n", 1)]).splitlines()[1] == "a\\x1b\\n  1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from scratch, test_resnet, 92.2 ± 0.4 [no run of fold 2]", None),
        ("a | b", r"a \| b"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)>"),
        ("[x](javascript:alert)", r"[x]\(javascript:alert)"),
        ("![x](http://a)", r"![x]\(http://a)"),
        (r"`a` *b* _c_ a_b \d $e$", r"\`a\` \*b\* \_c\_ a_b \\d \$e\$"),
        ("a\nb", r"a\\nb"),
    ],
)
def test_markdown_shows_text_as_it_is(text, expected):
    assert markdown(text) == (expected or text)
