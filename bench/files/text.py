"""Texts that come from outside: made printable, once, where they are put out.

A terminal obeys some characters, others turn the reading direction or cannot be encoded. Names in
records may hold any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import Any

STRANGER = "\ufffd"
"""What stands for a character that cannot be printed."""


def printable(text: str, longest: int | None = None, instead: str = STRANGER) -> str:
    """A text in one line, without what cannot be printed.

    Args:
        text: Any text.
        longest: Most characters; None for no limit.
        instead: What stands for a character that cannot be printed.

    >>> printable("a\\x1b[2J\\n\\u202eb")
    'a\ufffd[2J\ufffd\ufffdb'
    """
    cut = text if longest is None or len(text) <= longest else text[:longest] + "…"
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else instead for each in cut)


def flat(text: str, instead: str = STRANGER) -> str:
    """A text in one line, with single spaces, of which everything can be printed.

    >>> flat("a  b\\n c")
    'a b c'
    """
    return printable(" ".join(text.split()), instead=instead)


def command(words: Iterable[str]) -> str:
    """Words as one types them into a shell: like ``shlex.join``, with apostrophes readable.

    >>> command(["bench", "run", "--aug", "has(points='avoid')", "--data", "digits(train=200)"])
    'bench run --aug "has(points=\\'avoid\\')" --data \\'digits(train=200)\\''
    """
    return " ".join(
        f'"{word}"' if "'" in word and not any(each in word for each in '"$`\\!') else quote(word)
        for word in words
    )


def for_spreadsheet(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would compute begins with an apostrophe.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("-0.5"), for_spreadsheet(-0.5)
    ("'=1+1", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    shown = flat(value)
    if not shown.startswith(("=", "+", "-", "@")):
        return shown
    try:
        float(shown)
    except ValueError:
        return f"'{shown}"
    return shown


def printable_lines(text: str) -> str:
    r"""A text whose line breaks stay, and of whose lines everything can be printed.

    >>> printable_lines("a\x1b\nb")
    'a\ufffd\nb'
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def escaped(text: str) -> str:
    r"""A JSON text in which what cannot be printed is written as its number.

    >>> escaped('{"name": "\u202e±"}')
    '{"name": "\\u202e±"}'
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(each if each == "\n" or each.isprintable() else _number(each) for each in text)


def _number(character: str) -> str:
    """The escape of a character in JSON: of one beyond U+FFFF as two."""
    content = character.encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{int.from_bytes(content[at : at + 2]):04x}" for at in range(0, len(content), 2)
    )
