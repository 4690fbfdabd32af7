"""A file that takes up room, to be given up when the disk is full: then what must be written down still can be."""

import os
import shutil
from pathlib import Path
from typing import Final

SIZE: Final = 8 * 2**20
"""Bytes that are reserved: room for the moves of all requests that may be in flight."""
_SHARE: Final = 8
"""It takes at most this part of what is free."""


class ReservedSpace:
    """`OUT/ledger.ballast`, while a run works."""

    def __init__(self, out: Path) -> None:
        self._file = out / "ledger.ballast"

    def load(self) -> None:
        """Reserve the space. On a disk that has none to spare nothing is reserved."""
        try:
            size = min(SIZE, shutil.disk_usage(self._file.parent).free // _SHARE)
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(1, size))
            finally:
                os.close(fd)
        except (OSError, AttributeError):  # no room, or a system that cannot take it up at once
            self.drop()

    def drop(self) -> bool:
        """Return the room back; return whether there was any."""
        try:
            self._file.unlink()
        except OSError:
            return False
        return True
