"""The lock on a run directory: one run at a time, free again when its process is gone, however it went."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from batcher.errors import LedgerInUse, WrongUse
from batcher.terminal_text import command

_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""What a lock that somebody else holds is answered with; anything else says that there are no locks."""


class Lock:
    """Held from `take` to `free`. On a file of its own: to close the ledger's would drop SQLite's own locks."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._file = out / "ledger.lock"
        self._fd: int | None = None

    def take(self) -> None:
        """Acquire the lock, or raise LedgerInUse."""
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise WrongUse(f"{self._file} is a symbolic link: remove it, and see who made it") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(fd, 40, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno not in _HELD:
                raise WrongUse(
                    f"{self._out} lies where files cannot be locked ({error.strerror}), so that two runs could buy the "
                    "same jobs",
                    "choose a directory on another file system with -o",
                ) from None
            raise LedgerInUse(
                f"another run is at work on {self._out}" + (f" (process {pid})" if pid else ""),
                f"wait for it to end, or look at it: {command('status', self._out)}",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def free(self) -> None:
        """Release it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_locked(out: Path) -> bool:
    """Return whether a run is at work on the directory."""
    try:
        fd = os.open(out / "ledger.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(fd)
    return False
