"""Lines that fit the terminal: broken between words, and never where they are commands that are pasted."""

import shutil
import textwrap
from typing import Final, TextIO

_PASTED: Final = ("next: ", "look at it: ", "files/")
"""What stands in lines that hold a command or a name, which is pasted whole."""
_NARROWEST: Final = 20
"""Columns: a narrower terminal is written past its edge, rather than a word a line."""


def wrapped(line: str, stream: TextIO, hang: int = 2) -> str:
    """Return a line as it is printed to a stream; what goes on in another begins `hang` columns in."""
    if not stream.isatty() or line.lstrip().startswith(_PASTED):
        return line
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    broken = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(broken) if len(line) > width else line
