"""A second memory of what was submitted, outside the ledger: it tells an older copy of a ledger from the newest one.

Each intent to submit is noted, once it is committed and before its request leaves, in a file of the user's state
directory; the run's log has it too. A ledger that lacks what the journal has is a copy that was left behind.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batcher.clock import rfc3339
from batcher.errors import CopyInUse
from batcher.events import Moved
from batcher.job import State

_BLOCK: Final = 2**18
"""Bytes that are read at once, from the end backwards."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A submission as a journal has it. `at`: RFC 3339, to the millisecond."""

    at: str
    job_id: str
    attempt: int


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the journals: `$XDG_STATE_HOME/batcher`, by default in `~/.local/state`."""
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return Path(base) / "batcher"


class SubmissionJournal:
    """Notes intents in a file of its own for each run. What it cannot write it leaves: it must stop nothing."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.file = folder / f"{run_id}.submitted"
        self._fd: int | None = None
        self._held: int | None = None
        self._failed = False

    def hold(self, out: Path) -> None:
        """Keep other copies of the run from going on at the same time. Raises CopyInUse.

        Each would take the other's submissions for its own, or not know of them, and buy again what that has bought.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held = os.open(self.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # as what it cannot write
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise CopyInUse(
                    f"another copy of {out} is at work", "wait for it to end: two would buy the same jobs twice"
                ) from None

    def note(self, events: Iterable[Moved]) -> None:
        """Append the submissions among these moves, in one write."""
        lines = "".join(
            f"{rfc3339(one.at)} {one.job_id} {one.attempt}\n" for one in events if one.to is State.SUBMITTING
        )
        if not lines or self._failed:
            return
        try:
            if self._fd is None:
                self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._fd, lines.encode())
        except OSError:
            self._failed = True

    def close(self) -> None:
        """Close the file, and let other copies go on."""
        for fd in (self._fd, self._held):
            if fd is not None:
                os.close(fd)
        self._fd = self._held = None


def in_state_file(file: Path, *, backwards: bool = False) -> Iterator[JournalEntry]:
    """Return what a state file has seen. A line that was cut off is left out."""
    for line in _lines(file, backwards=backwards):
        at, _, rest = line.partition(" ")
        job_id, _, attempt = rest.partition(" ")
        if attempt.isdigit():
            yield JournalEntry(at, job_id, int(attempt))


def in_log(file: Path, *, backwards: bool = False) -> Iterator[JournalEntry]:
    """Return what a run's log has seen."""
    for line in _lines(file, backwards=backwards):
        if '"submitting"' not in line:
            continue
        try:
            entry = json.loads(line)
            if entry["to"] == State.SUBMITTING:
                yield JournalEntry(str(entry["at"]), str(entry["job_id"]), int(entry["attempt"]))
        except (ValueError, KeyError, TypeError):
            continue


def _lines(file: Path, *, backwards: bool) -> Iterator[str]:
    """Return a file's whole lines, from its end on where only the last is wanted; none where there is no file."""
    try:
        opened = file.open("rb")
    except OSError:
        return
    with opened:
        if not backwards:
            for line in opened:
                if line.endswith(b"\n"):
                    yield line[:-1].decode("utf-8", "replace")
            return
        rest, end = b"", opened.seek(0, os.SEEK_END)
        whole = False
        while end > 0:
            start = max(0, end - _BLOCK)
            opened.seek(start)
            parts = (opened.read(end - start) + rest).split(b"\n")
            rest, end = parts[0], start
            for line in reversed(parts[1:]):
                if whole:
                    yield line.decode("utf-8", "replace")
                whole = True  # what follows the last line's end is cut off, or nothing
        if whole and rest:
            yield rest.decode("utf-8", "replace")
