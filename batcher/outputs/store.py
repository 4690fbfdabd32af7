"""A file in the run directory is whole or absent: written aside, flushed, renamed, its folder flushed."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PARTS: Final = ".parts"


class Part:
    """A file that is being written, with its digest as it grows. Every call blocks: use a thread."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self._opened = file.open("wb")

    def write(self, block: bytes | bytearray) -> None:
        """Append a block."""
        self._opened.write(block)
        self._digest.update(block)
        self.bytes += len(block)

    def close(self) -> str:
        """Flush it to the disk; give its SHA-256."""
        self._opened.flush()
        os.fsync(self._opened.fileno())
        self._opened.close()
        return self.digest()

    def digest(self) -> str:
        """Give the SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Throw it away."""
        self._opened.close()
        self.file.unlink(missing_ok=True)


class Store:
    """The run directory's files. Every call blocks: use a thread."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._parts = out / PARTS

    def prepare(self) -> None:
        """Make the folders, and remove what a killed run left half-written."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(parents=True, exist_ok=True)
        (self.out / "files").mkdir(exist_ok=True)
        sync_folder(self.out)

    def ready(self) -> None:
        """Make the folders where they are not there, for a single repair."""
        self._parts.mkdir(parents=True, exist_ok=True)
        (self.out / "files").mkdir(exist_ok=True)

    def close(self) -> None:
        """Remove the folder of half-written files."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def begin(self, key: str) -> Part:
        """Begin a file aside."""
        return Part(self.part(key))

    def part(self, key: str) -> Path:
        """Name a file aside."""
        return self._parts / key

    def place(self, part: Path, file: str, job_id: str) -> None:
        """Give a whole part its final name, relative to the run directory; what stood there gives way."""
        final = self.out / file
        self._make_folder(final.parent)
        if final.exists() and _digest(final) != _digest(part):
            self.give_way(file, job_id)
        part.replace(final)
        sync_folder(final.parent)

    def write_sidecar(self, file: str, content: Mapping[str, object], key: str) -> None:
        """Write a sidecar, whole or not at all."""
        part = self.begin(key)
        part.write(json.dumps(content, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass") + b"\n")
        part.close()
        final = self.out / file
        part.file.replace(final)
        sync_folder(final.parent)

    def give_way(self, file: str, job_id: str) -> str | None:
        """Move a file to `replaced/JOB_ID/`, under a number where one is there already: nothing is deleted.

        Give where it is now, relative to the run directory; None where there was none.
        """
        source = self.out / file
        if not source.exists():
            return None
        folder = self.out / "replaced" / job_id
        self._make_folder(folder)
        target, number = folder / source.name, 1
        while target.exists():
            target, number = folder / f"{source.stem}.{number}{source.suffix}", number + 1
        source.rename(target)
        sync_folder(folder)
        sync_folder(source.parent)
        return target.relative_to(self.out).as_posix()

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
