"""Brings one output into a part: streamed, hashed, measured, decoded. Says what came, and decides nothing."""

import asyncio
import binascii
import errno
import math
import threading
from base64 import b64decode
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from batcher.job import ASIDE, Output
from batcher.outputs.failures import Failed, Interrupted, UrlRefused, UrlUnusable, Wrong
from batcher.outputs.media import MediaType, NotMedia, examine
from batcher.outputs.output_folder import OutputFolder, PartFile
from batcher.provider.calls import Download, Wire, WireFault

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

FULL_HANDED: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of too many open files: they pass when others are closed."""
_DEAD: Final = frozenset({403, 404, 410})
MAX_BYTES: Final = 2 * 2**30
"""Bytes of an output."""
_GATHERED: Final = 2**20
"""Bytes that go to a thread at once."""
_SILENT: Final = 60.0
"""Seconds without an answer, or without a byte of the file, after which a try is over."""
_SLOWEST: Final = 16 * 2**10
"""Bytes a second, on average, below which a file is given up that has been on its way for long: a host may drip."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, checked file, still aside."""

    part: Path
    bytes: int
    sha256: str
    media: MediaType

    def output(self, wanted: Output, file: str, at: float) -> Output:
        """Return the output that it is, in place under this name; `at`: seconds since 1970."""
        came_within = wanted.url.startswith(ASIDE)
        return replace(
            wanted,
            url=f"data:{self.media.mime};sha256={self.sha256}," if came_within else wanted.url,
            file=file,
            bytes=self.bytes,
            sha256=self.sha256,
            mime=self.media.mime,
            width=self.media.width,
            height=self.media.height,
            downloaded_at=at,
        )


async def fetch(
    url: str, wire: Wire, store: OutputFolder, key: str, then: Callable[[Fetched], T], slow_after: float = math.inf
) -> T | Failed:
    """Fetch one output into a part named `key`. OSError of the disk is raised.

    `then` is called with what came, on the thread that wrote it: what follows a small file costs no other hop.
    `slow_after`: seconds after which a file that hardly grows is given up.
    """
    coming = IncomingFile(store, key, then)
    scheme = url.partition(":")[0].lower()
    try:
        if scheme == "data":
            return await asyncio.to_thread(coming.do, coming.decode, url)
        if url.startswith(ASIDE):
            return await asyncio.to_thread(coming.do, coming.take_over, Path(url.removeprefix(ASIDE)))
        if scheme not in {"http", "https"}:
            return UrlUnusable(f"{url[:100]} is not an http URL")
        return await _stream(url, wire, coming, slow_after)
    except OSError as error:
        if error.errno in FULL_HANDED:  # it passes when other files and connections are closed
            return Interrupted(str(error))
        raise
    finally:
        coming.leave()


async def _stream(url: str, wire: Wire, coming: "IncomingFile[T]", slow_after: float) -> T | Failed:
    async with AsyncExitStack() as stack:
        patience = min(_SILENT, slow_after)
        try:
            async with asyncio.timeout(patience):  # a host may drip headers, each byte a sign of life
                download = await stack.enter_async_context(wire.download(url))
        except TimeoutError:
            return Interrupted(f"no answer came within {patience:g} s")
        if isinstance(download, WireFault):
            return UrlUnusable(download.message) if download.never else Interrupted(download.message)
        if download.status in _DEAD:
            return UrlRefused(f"HTTP {download.status}")
        if not 200 <= download.status < 300:  # noqa: PLR2004
            return Interrupted(f"HTTP {download.status}")
        return await _receive(download, coming, slow_after)


async def _receive(download: Download, coming: "IncomingFile[T]", slow_after: float) -> T | Failed:
    """Receive a file's blocks. A small file is written, flushed and checked in one go."""
    blocks: list[bytes] = []
    held = total = 0
    now, patience = asyncio.get_running_loop().time, min(_SILENT, slow_after)
    begun = now()
    try:
        async with asyncio.timeout(patience) as silence:
            async for block in download.blocks:
                silence.reschedule(None)
                blocks.append(block)
                held, total = held + len(block), total + len(block)
                if total > MAX_BYTES:
                    return Wrong("too large", "it has over 2 GiB")
                lasts = now() - begun
                if lasts > slow_after and total < lasts * _SLOWEST:
                    return Interrupted(f"{total:,} bytes came in {lasts:.0f} s")
                if held >= _GATHERED:
                    await asyncio.to_thread(coming.do, coming.write, blocks)
                    blocks, held = [], 0
                silence.reschedule(now() + patience)
    except TimeoutError:
        return Interrupted(f"nothing came for {patience:g} s, after {total:,} bytes")
    except ConnectionError as error:
        return Interrupted(str(error) or type(error).__name__)
    return await asyncio.to_thread(coming.do, coming.complete, blocks, download.length)


class IncomingFile(Generic[T]):
    """An output on its way to the disk. What blocks is for a thread, and goes there by `do`."""

    def __init__(self, store: OutputFolder, key: str, then: Callable[[Fetched], T]) -> None:
        self._store = store
        self._key = key
        self._then = then
        self.part: PartFile | None = None
        """What is there of it, and is to be dropped unless it becomes whole."""
        self._lock = threading.Lock()
        self._busy = self._left = False

    def do(self, work: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
        """Do work of this output's on a thread, which nobody may wait for any more. Raises CancelledError once left."""
        with self._lock:
            if self._left:
                raise CancelledError
            self._busy = True
        try:
            return work(*args, **named)
        finally:
            with self._lock:
                self._busy = False
                if self._left:
                    self._drop()

    def leave(self) -> None:
        """Throw away what is not whole. A thread that is at it still does that itself when it is done.

        Were the file closed under it, it might write to whatever is opened next under the same number: the ledger.
        """
        with self._lock:
            self._left = True
            if not self._busy:
                self._drop()

    def _drop(self) -> None:
        if self.part:
            self.part.drop()
            self.part = None

    def write(self, blocks: Sequence[bytes]) -> PartFile:
        """Append blocks, in a file that is begun with the first."""
        if self.part is None:
            self.part = self._store.begin(self._key)
        for block in blocks:
            self.part.write(block)
        return self.part

    def complete(self, blocks: Sequence[bytes], length: int | None) -> T | Wrong:
        """Append the last blocks, look at the file, flush it and go on with it. `length`: the bytes announced."""
        small = self.part is None
        content = b"".join(blocks) if small else b""
        part = self.write([content] if small else blocks)
        if length is not None and part.bytes != length:
            return Wrong(part.digest(), f"{part.bytes} bytes came, where {length} were announced")
        try:
            media = _seen(part, content if small else None)
        except NotMedia as why:
            return Wrong(part.digest(), str(why))
        fetched = Fetched(part.file, part.bytes, part.close(), media)
        self.part = None
        return self._then(fetched)

    def decode(self, url: str) -> T | Wrong:
        """Write what a data URI holds."""
        head, _, body = url.partition(",")
        try:
            content = b64decode(body, validate=False) if head.endswith(";base64") else unquote_to_bytes(body)
        except (binascii.Error, ValueError) as error:
            return Wrong("undecodable", f"a data URI that cannot be read: {error}")
        return self.complete([content], None)

    def take_over(self, file: Path) -> T | Interrupted | Wrong:
        """Use a file that came within a result; where it is gone, the result is asked for again."""
        try:
            opened = file.open("rb")
        except FileNotFoundError:
            return Interrupted("what came within the result is not there any more")
        with opened:
            while len(block := opened.read(_GATHERED)) == _GATHERED:
                self.write([block])
        fetched = self.complete([block], None)
        file.unlink(missing_ok=True)
        return fetched


def _seen(part: PartFile, content: bytes | None) -> MediaType:
    """Return what a part is, from memory where it is there whole."""
    if content is not None:
        return examine(content)
    with part.mapped() as mapped:
        return examine(mapped)
