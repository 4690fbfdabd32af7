"""A file in the run directory is whole or absent: written aside, flushed, renamed, its folder flushed."""

import errno
import hashlib
import json
import mmap
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from batcher.errors import WrongUse
from batcher.outputs.sidecar import sidecar_file
from batcher.paths import is_inside

PARTS: Final = ".parts"


class PartFile:
    """A file that is being written, with its digest as it grows. Every call blocks: use a thread.

    `folder`: the descriptor of the folder that it lies in, which may be closed once this is made.
    """

    def __init__(self, file: Path, folder: int | None = None) -> None:
        self.file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(file if folder is None else file.name, flags, 0o666, dir_fd=folder)

    def write(self, block: bytes) -> None:
        """Append a block."""
        self._digest.update(block)  # first: it is then at hand in the processor's cache
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.bytes += len(block)

    def mapped(self) -> mmap.mmap:
        """Return what was written so far, of which there must be something, without reading it into memory."""
        return mmap.mmap(self._fd, self.bytes, access=mmap.ACCESS_READ)

    def close(self) -> str:
        """Flush it to the disk; return its SHA-256."""
        os.fsync(self._fd)
        self._end()
        return self.digest()

    def digest(self) -> str:
        """Return the SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Throw it away."""
        self._end()
        self.file.unlink(missing_ok=True)

    def _end(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LinkInTheWay(WrongUse):
    """A folder of the run directory is a symbolic link: results are written inside the run directory only."""


class PathEscapes(WrongUse):
    """A name that the ledger or a sidecar has leads out of the run directory: nothing is read or written there."""


class OutputFolder:
    """The run directory's files. Every call blocks: use a thread.

    Folders are opened one by one and never through a symbolic link, so that no name leads out of the directory.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.parts = out / PARTS
        """Files that are not whole yet."""

    def prepare(self) -> None:
        """Make the folders, and remove what a killed run left half-written."""
        self.close()
        self.ready()
        sync_folder(self.out)

    def ready(self) -> None:
        """Make the folders where they are not there."""
        for name in (PARTS, "files"):
            with self._folder(name):
                pass

    def close(self) -> None:
        """Remove the folder of half-written files."""
        if self.parts.is_symlink():
            self.parts.unlink()
        shutil.rmtree(self.parts, ignore_errors=True)

    def free(self) -> int:
        """Return the bytes that this user may still write where the results go. Quick: it needs no thread."""
        found = os.statvfs(self.out)
        return found.f_bavail * found.f_frsize

    def begin(self, key: str) -> PartFile:
        """Begin a file aside."""
        with self._folder(PARTS) as fd:
            return PartFile(self.part(key), fd)

    def part(self, key: str) -> Path:
        """Name a file aside."""
        return self.parts / key

    def taken(self, file: str) -> bool:
        """Return whether a file or a sidecar of this name is there."""
        return os.path.lexists(self.out / file) or os.path.lexists(self.out / sidecar_file(file))

    def place(self, part: Path, file: str, job_id: str, said: Mapping[str, object] | None = None) -> None:
        """Give a whole part its final name, relative to the run directory; what stood there gives way.

        `said`: its sidecar, which gets its name once the file has its own for good.
        """
        beside = None if said is None else self._sidecar_part(said, f"{part.name}.json")
        folder, name = os.path.split(file)
        with self._result_folder(folder) as fd, self._folder(PARTS) as parts:
            if _is_there(name, fd) and _digest(name, fd) != _digest(part.name, parts):
                self.give_way(file, job_id)
            _name(part.name, parts, name, fd)
            if beside:
                _name(beside.name, parts, sidecar_file(name), fd)

    def write_sidecar(self, file: str, content: Mapping[str, object], key: str) -> None:
        """Write a sidecar, whole or not at all."""
        part = self._sidecar_part(content, key)
        folder, name = os.path.split(file)
        with self._result_folder(folder) as fd, self._folder(PARTS) as parts:
            _name(part.name, parts, name, fd)

    def _sidecar_part(self, content: Mapping[str, object], key: str) -> Path:
        part = self.begin(key)
        part.write(_as_json(content))
        part.close()
        return part.file

    def give_way(self, file: str, job_id: str) -> str | None:
        """Move a file and its sidecar to `replaced/JOB_ID/`: nothing is deleted. Both get a number where one is there.

        Return where the file is now, relative to the run directory; None where there was none.
        """
        folder, name = os.path.split(file)
        pair = dict.fromkeys((name, sidecar_file(name)))
        with self._result_folder(folder) as source:
            there = [one for one in pair if _is_there(one, source)]
            if not there:
                return None
            with self._folder(f"replaced/{job_id}") as target:
                free = _free_stem(name, pair, target)
                for one in there:
                    os.rename(one, free + PurePosixPath(one).suffix, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)
            os.fsync(source)
        return f"replaced/{job_id}/{free}{PurePosixPath(name).suffix}" if name in there else None

    def bring_back(self, file: str, to: str) -> bool:
        """Move a file that gave way back into `files/`, where nothing may stand under its name; what does, gives way.

        Its sidecar stays where it is. Return whether the file was there.
        """
        (folder, name), (new_folder, new_name) = os.path.split(file), os.path.split(to)
        with self._result_folder(folder) as source, self._result_folder(new_folder) as target:
            if not _is_there(name, source):
                return False
            if _is_there(new_name, target):
                self.give_way(to, PurePosixPath(folder).name)
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
            os.fsync(source)
        return True

    def read_sidecar(self, file: str) -> dict[str, Any] | None:
        """Return what the sidecar of a result says, None where there is none that can be read."""
        try:
            with open_result(self.out, sidecar_file(file)) as opened:
                said = json.loads(opened.read())
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) and isinstance(said.get("output"), dict) else None

    def drop_sidecar(self, file: str) -> None:
        """Remove the sidecar of a file that was brought back, and the folder where nothing is left in it."""
        folder, name = os.path.split(file)
        with self._result_folder(folder) as source, suppress(FileNotFoundError):
            os.unlink(sidecar_file(name), dir_fd=source)
        with suppress(OSError):
            (self.out / folder).rmdir()

    def digest(self, file: str) -> str | None:
        """Return the SHA-256 of a result, None where there is no such file."""
        try:
            with open_result(self.out, file) as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError:
            return None

    def _result_folder(self, folder: str) -> AbstractContextManager[int]:
        """Open a folder that results lie in. Raises PathEscapes, LinkInTheWay."""
        if not is_inside(f"{folder}/x"):
            raise PathEscapes(f"{folder!r} leads out of {self.out}: nothing was written there")
        return self._folder(folder)

    @contextmanager
    def _folder(self, folder: str) -> Iterator[int]:
        """Open a folder of the run directory, made where it is not there. Raises LinkInTheWay."""
        fd = os.open(self.out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in PurePosixPath(folder).parts:
                inner = _step(fd, name, folder)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)


def _as_json(content: Mapping[str, object]) -> bytes:
    """Return a sidecar as it is written: orjson takes a twentieth of the standard library's time to indent it."""
    try:
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # half a character, a number of over 64 bits
        return json.dumps(content, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass") + b"\n"


def open_result(out: Path, file: str) -> BufferedReader:
    """Open a result to be read, its folders one by one and nothing through a link; a pipe is not waited for.

    Raises PathEscapes where the name leads out of the run directory, else OSError.
    """
    if not is_inside(file):
        raise PathEscapes(f"{file!r} leads out of {out}: it is not read")
    folder, name = os.path.split(file)
    fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in PurePosixPath(folder).parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = inner
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "is not a regular file")
    return os.fdopen(opened, "rb")


def _name(part: str, parts: int, name: str, fd: int) -> None:
    """Give a part its name in a folder, and see that it keeps it when the power goes."""
    os.rename(part, name, src_dir_fd=parts, dst_dir_fd=fd)
    os.fsync(fd)


def _step(fd: int, name: str, folder: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=fd)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=fd)
        os.fsync(fd)
        return os.open(name, flags, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise LinkInTheWay(
                f"{folder} leads through a symbolic link ({name}): results are written inside the run directory only",
                "move the folder back in the link's place, or choose another run directory with -o",
            ) from None
        raise


def _is_there(name: str, fd: int) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _free_stem(name: str, pair: Iterable[str], fd: int) -> str:
    """Return a name without extension under which neither a file nor its sidecar is there."""
    stem, number = PurePosixPath(name).stem, 0
    free = stem
    while any(_is_there(free + PurePosixPath(one).suffix, fd) for one in pair):
        number += 1
        free = f"{stem}.{number}"
    return free


def _digest(name: str, fd: int | None = None) -> str:
    """Return a file's SHA-256; nothing for what is no file of its own."""
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(opened).st_mode):  # a folder, or a pipe
        os.close(opened)
        return ""
    with os.fdopen(opened, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
