"""Which runs of this machine have which requests, in the user's state directory: so that none adopts another's.

Each run that can find its lost requests notes the ids that it was answered with, and claims one before it adopts it.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_ENDING: Final = ".accepted"
_CLAIMS: Final = "claims"


class RequestRegister:
    """Of one run. What it cannot write it leaves: it must stop nothing."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = folder
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
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = self._folder / f"{self._run_id}{_ENDING}"
                self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._fd, lines.encode("utf-8", "replace"))
        except OSError:
            self._failed = True

    def of_others(self, ids: Collection[str]) -> set[str]:
        """Return those of these ids that other runs of this machine were answered with."""
        wanted, found = {one.encode("utf-8", "replace"): one for one in ids}, set[str]()
        for file in sorted(self._folder.glob(f"*{_ENDING}")) if wanted else ():
            if file.name == f"{self._run_id}{_ENDING}":
                continue
            with suppress(OSError), file.open("rb") as lines:
                found.update(wanted[key] for line in lines if (key := line.rstrip(b"\n")) in wanted)
        return found

    def claim(self, request_id: str) -> bool:
        """Claim a request for this run; return whether it is this run's now. Another run's claim stands."""
        name = hashlib.sha256(request_id.encode("utf-8", "replace")).hexdigest()[:32]
        file = self._folder / _CLAIMS / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as claim:
                claim.write(self._run_id)
        except FileExistsError:
            with suppress(OSError):
                return file.read_text("utf-8") in {self._run_id, ""}  # empty: the process was ended that wrote it
            return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
