"""Brings one output into a part: streamed, hashed, measured, decoded. Says what came, and decides nothing."""

import asyncio
import binascii
import errno
from base64 import b64decode
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from batcher.job import Output
from batcher.outputs.media import Media, NotMedia, examine
from batcher.outputs.store import Part, Store
from batcher.provider.wire import BLOCK, Download, Wire, WireFault

_FULL_HANDED: Final = frozenset({errno.EMFILE, errno.ENFILE})
_DEAD: Final = frozenset({403, 404, 410})
MAX_BYTES: Final = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, checked file, still aside."""

    part: Path
    bytes: int
    sha256: str
    media: Media

    def output(self, wanted: Output, file: str, at: float) -> Output:
        """Give the output that it is, in place under this name; `at`: seconds since 1970."""
        return replace(
            wanted,
            file=file,
            bytes=self.bytes,
            sha256=self.sha256,
            mime=self.media.mime,
            width=self.media.width,
            height=self.media.height,
            downloaded_at=at,
        )


@dataclass(frozen=True, slots=True)
class Dead:
    """The URL is refused."""

    message: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """Bytes came, and are not what they should be."""

    sha256: str
    message: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """It did not arrive; another try may do better."""

    message: str


Fetch = Fetched | Dead | Wrong | Interrupted


async def fetch(url: str, wire: Wire, store: Store, key: str) -> Fetch:
    """Fetch one output into a part named `key`. OSError of the disk is raised."""
    if not url.startswith(("http://", "https://", "data:")):
        return Dead(f"{url[:100]} is no URL that can be fetched")
    try:
        part = await asyncio.to_thread(store.begin, key)
    except OSError as error:
        if error.errno in _FULL_HANDED:  # it passes when other files and connections are closed
            return Interrupted(str(error))
        raise
    try:
        if url.startswith("data:"):
            problem: Dead | Wrong | Interrupted | None = await asyncio.to_thread(_decode, url, part)
        else:
            problem = await _stream(url, wire, part)
        if problem is None:
            return await asyncio.to_thread(_check, part)
        await asyncio.to_thread(part.drop)
        return problem
    except BaseException:
        part.drop()
        raise


async def _stream(url: str, wire: Wire, part: Part) -> Dead | Wrong | Interrupted | None:
    async with wire.download(url) as download:
        if isinstance(download, WireFault):
            if download.barred:
                return Wrong(f"barred {url}", download.message)
            return Interrupted(download.message)
        if download.status in _DEAD:
            return Dead(f"HTTP {download.status}")
        if not 200 <= download.status < 300:  # noqa: PLR2004
            return Interrupted(f"HTTP {download.status}")
        return await _receive(download, part)


async def _receive(download: Download, part: Part) -> Wrong | Interrupted | None:
    gathered = bytearray()
    try:
        async for block in download.blocks:
            gathered += block
            if len(gathered) >= BLOCK:
                await asyncio.to_thread(part.write, gathered)
                gathered = bytearray()
            if part.bytes > MAX_BYTES:
                return Wrong("too large", "it has over 2 GiB")
    except (ConnectionError, TimeoutError) as error:
        return Interrupted(str(error) or type(error).__name__)
    await asyncio.to_thread(part.write, gathered)
    if download.length is not None and part.bytes != download.length:
        return Wrong(part.digest(), f"{part.bytes} bytes came, where {download.length} were announced")
    return None


def _decode(url: str, part: Part) -> Wrong | None:
    head, _, body = url.partition(",")
    try:
        part.write(b64decode(body, validate=False) if head.endswith(";base64") else unquote_to_bytes(body))
    except (binascii.Error, ValueError) as error:
        return Wrong("undecodable", f"a data URI that cannot be read: {error}")
    return None


def _check(part: Part) -> Fetched | Wrong:
    digest = part.close()
    try:
        media = examine(part.file)
    except NotMedia as why:
        part.file.unlink(missing_ok=True)
        return Wrong(digest, str(why))
    return Fetched(part.file, part.bytes, digest, media)
