"""Which runs of this machine have which requests, in the user's state directory: so that none adopts another's.

Each run that can find its lost requests notes the ids that it was answered with, and claims one before it adopts it.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from batcher.settings import Destination

_ENDING: Final = ".accepted"
_CLAIMS: Final = "claims"
_ANSWERED_WITHIN: Final = 150.0
"""Seconds after its intent within which a submission is answered, or given up."""


def register_folder(state: Path, owner: Destination, run_id: str) -> Path:
    """Return the folder in which runs with the same requests are: of one API. A rehearsal has an API of its own."""
    name = f"{owner.provider} {run_id}" if owner.is_sandbox else owner.provider
    return state / "requests" / hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


class RequestRegister:
    """Of one run. What it cannot write it leaves: it must stop nothing."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder
        self._run_id = run_id
        self._fd: int | None = None
        self._failed = False

    def note(self, ids: Iterable[str]) -> None:
        """Append the ids of requests that are this run's, in one write."""
        lines = "".join(f"{request_id}\n" for request_id in ids)
        if not lines or self._failed:
            return
        try:
            if self._fd is None:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = self.folder / f"{self._run_id}{_ENDING}"
                self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._fd, lines.encode("utf-8", "replace"))
        except OSError:
            self._failed = True

    def of_others(self, ids: Collection[str]) -> set[str]:
        """Return those of these ids that other runs of this machine were answered with."""
        wanted, found = {one.encode("utf-8", "replace"): one for one in ids}, set[str]()
        for file in sorted(self.folder.glob(f"*{_ENDING}")) if wanted else ():
            if file.name == f"{self._run_id}{_ENDING}":
                continue
            with suppress(OSError), file.open("rb") as lines:
                found.update(wanted[key] for line in lines if (key := line.rstrip(b"\n")) in wanted)
        return found

    def claim(self, request_id: str) -> bool:
        """Claim a request for this run; return whether it is this run's now. Another run's claim stands."""
        name = hashlib.sha256(request_id.encode("utf-8", "replace")).hexdigest()[:32]
        file = self.folder / _CLAIMS / name
        draft = file.with_name(f"{name}.{self._run_id}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_text(self._run_id, "utf-8")
            try:
                os.link(draft, file)  # whole or not at all, and not where there is one
            finally:
                draft.unlink(missing_ok=True)
        except FileExistsError:
            with suppress(OSError):
                return file.read_text("utf-8") == self._run_id
            return False
        except OSError:
            return False
        return True

    def others_at_work(self, now: float) -> bool:
        """Return whether another run of this machine may be waiting for the answer to a submission.

        `now` in seconds since 1970. Each run notes its intents in the state directory, two folders above.
        """
        for folder, ending in ((self.folder, _ENDING), (self.folder.parent.parent, ".submitted")):
            for file in folder.glob(f"*{ending}"):
                with suppress(OSError):
                    if file.name != f"{self._run_id}{ending}" and now - file.stat().st_mtime <= _ANSWERED_WITHIN:
                        return True
        return False

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
