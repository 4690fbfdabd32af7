"""Takes data URIs out of an answer as it comes, into files: what is left is short, however much media it carries."""

import binascii
import errno
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

_BEGIN: Final = b'"data:'
_MOST_OF_A_HEAD: Final = 256
"""Characters of a data URI before its comma."""
_ESCAPES: Final = ((b"\\/", b"/"), (b"\\n", b""), (b"\\r", b""), (b"\\t", b""))


class DataUriExtractor:
    """A JSON text, fed in blocks. Every call blocks: use a thread.

    A text that begins with `data:...;base64,` ends in the body as that head and `aside:N`; what it encodes is in the
    N-th file. Nothing is judged here: what is no base64 leaves a file of what could be read.
    """

    def __init__(self, folder: Path, body: bytearray) -> None:
        self.body = body
        self.files: list[Path] = []
        self._folder = folder
        self._rest: bytes
        """Came, and cannot be understood before more has come."""
        self._file: BinaryIO | None = None
        """Of the data URI that is coming."""
        self._rest = bytes(body)
        body.clear()

    def feed(self, block: bytes) -> None:
        """Process the next bytes."""
        self._rest += block
        while self._data() if self._file else self._text():
            pass

    def close(self) -> None:
        """Process the end of the stream."""
        if self._file:
            self._end_file()
        else:
            self.body += self._rest
        self._rest = b""

    def drop(self) -> None:
        """Throw away what came: the answer broke off, or the disk failed."""
        self._end_file()
        for file in self.files:
            file.unlink(missing_ok=True)

    def _text(self) -> bool:
        """Pass on what is no data URI; return whether one begins, so that there is more to do."""
        at = self._rest.find(_BEGIN)
        if at < 0:
            self._pass_on(max(0, len(self._rest) - len(_BEGIN)))
            return False
        before = (self.body[-64:] + self._rest[:at]).rstrip(b"\\")
        escaped = (len(self.body[-64:]) + at - len(before)) % 2 == 1  # the quote is within a text
        comma = self._rest.find(b",", at, at + _MOST_OF_A_HEAD)
        if comma < 0 and len(self._rest) < at + _MOST_OF_A_HEAD and not escaped:
            self._pass_on(at)
            return False
        if escaped or comma < 0 or not self._rest[:comma].endswith(b";base64") or b'"' in self._rest[at + 1 : comma]:
            self._pass_on(at + len(_BEGIN))
            return True
        self._pass_on(comma + 1)
        self.body += b"aside:%d" % len(self.files)
        if self._folder.is_symlink():
            raise OSError(errno.ELOOP, f"{self._folder} is a symbolic link: nothing is written through it")
        fd, name = tempfile.mkstemp(prefix="aside-", dir=self._folder)
        self.files.append(Path(name))
        self._file = os.fdopen(fd, "wb")
        return True

    def _data(self) -> bool:
        """Decode what has come; return whether the URI is at its end, so that there is more to do."""
        end = self._rest.find(b'"')
        come, after = (self._rest, b"") if end < 0 else (self._rest[:end], self._rest[end:])
        held = b"\\" if end < 0 and come.endswith(b"\\") else b""
        come = come[: len(come) - len(held)]
        if b"\\" in come:
            for escape, plain in _ESCAPES:
                come = come.replace(escape, plain)
        whole = len(come) if end >= 0 else len(come) // 4 * 4
        if self._file:
            self._file.write(_decoded(come[:whole]))
        self._rest = come[whole:] + held + after
        if end >= 0:
            self._end_file()
        return end >= 0

    def _pass_on(self, count: int) -> None:
        self.body += self._rest[:count]
        self._rest = self._rest[count:]

    def _end_file(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        return b""
