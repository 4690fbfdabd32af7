"""Texts that steer no terminal, whoever wrote them, and commands that work when they are pasted. Pure."""

import os
import re
import shlex
from pathlib import Path
from typing import Final

CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters, line and paragraph separators, and what turns the direction of writing round."""
_NARROW: Final = 0xFF
"""The last character that is written with two hexadecimal digits."""
_ANSI_C: Final = re.compile(r"(?:[\w@%+=:,./ -]|'[^']*'|\$'(?:[^'\\]|\\.)*')*")
"""Words of a shell that are plain or quoted so that it changes nothing in them."""


def plain(text: str) -> str:
    """Return a text of one line with control characters as escapes, so that they cannot move a cursor or hide words."""
    return CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code <= _NARROW else f"\\u{code:04x}"


def command(*parts: str | Path) -> str:
    """Return a command that works when pasted, whatever a file is called: a path is never taken for an option."""
    return " ".join(["batcher", *map(_quoted, parts)])


_TOKEN_SET: Final = re.compile(r"\A[A-Z][A-Z_]*_(?:TOKEN|KEY)=\.\.\. ")
"""Before a command: where a token is put, as the user is told to."""


def is_own_command(text: str) -> bool:
    """Return whether a text is one of our commands, or several with `&&` between them, and nothing else.

    A ledger that was passed on says what its next command is; what it says must not be pasted unseen.
    """
    for whole in text.split(" && "):
        part = _TOKEN_SET.sub("", whole)
        try:
            words = shlex.split(part)
        except ValueError:
            return False
        if words[:1] != ["batcher"] or CONTROLS.search(part):
            return False
        if " ".join(map(shlex.quote, words)) != part and (not _ANSI_C.fullmatch(part)):
            return False
    return True


def _quoted(part: str | Path) -> str:
    """Return a word as a shell reads it; what a terminal would not show as it is stands in `$'...'`."""
    text = str(part)
    if isinstance(part, Path) and text.startswith("-"):
        text = f"./{text}"
    if not (CONTROLS.search(text) or any("\ud800" <= char <= "\udfff" for char in text)):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_ansi_c, text)) + "'"


def _in_ansi_c(char: str) -> str:
    if char in "'\\":
        return f"\\{char}"
    if CONTROLS.match(char) or "\ud800" <= char <= "\udfff":
        return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
    return char
