"""Standard output and error that cannot be steered by what is printed, and that may go away while a run works."""

import io
import os
import re
import sys
from typing import Any, Final

from batcher.terminal_text import CONTROLS, plain

_LINES: Final = re.compile(r"([\n\t])")


class _Unread(io.FileIO):
    """A file that goes on where whoever read it has gone: that ends the printing, and nothing else."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - as FileIO has it
        """Write what somebody still reads."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


class TamedText(io.TextIOWrapper):
    """A text stream that writes control characters as escapes, whoever's words they stand in; as JSON's, in JSON.

    `untamed` is the same stream for what moves the cursor on purpose.
    """

    def __init__(self, raw: io.FileIO, like: io.TextIOWrapper, *, as_json: bool) -> None:
        super().__init__(
            io.BufferedWriter(raw),
            "utf-8" if as_json else like.encoding,
            "backslashreplace" if as_json else like.errors,
            line_buffering=True,
        )
        self._as_json = as_json
        self.untamed = like

    def write(self, text: str) -> int:
        """Write a text, which may be of several lines."""
        if CONTROLS.search(text):
            if self._as_json:  # within its strings; between them are line breaks alone
                tamed = CONTROLS.sub(lambda found: _json_escape(found.group()), text)
            else:
                tamed = "".join(part if part in {"\n", "\t"} else plain(part) for part in _LINES.split(text))
            super().write(tamed)
        else:
            super().write(text)
        return len(text)


def _json_escape(char: str) -> str:
    return char if char in {"\n", "\t"} else f"\\u{ord(char):04x}"


def tame() -> None:
    """Replace standard output and error by such streams; JSON is UTF-8 whatever the terminal speaks."""
    as_json = "--json" in sys.argv
    for name, number in (("stdout", 1), ("stderr", 2)):
        like = getattr(sys, name)
        if isinstance(like, io.TextIOWrapper) and not isinstance(like, TamedText):
            raw: io.FileIO = _Unread(1, "w", closefd=False) if number == 1 else io.FileIO(2, "w", closefd=False)
            setattr(sys, name, TamedText(raw, like, as_json=as_json and number == 1))


def open_what_is_closed() -> None:
    """Open something at each standard descriptor, lest a file of ours gets the number of one and is printed into."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
