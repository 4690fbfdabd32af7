"""Fetches the originals that a manifest names by URL, once, so that a report can show them beside what came of them."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from batcher.ledger.reader import Reader
from batcher.provider.calls import Wire, WireFault
from batcher.provider.sign_in import remote
from batcher.runs.dependencies import http_wire
from batcher.show.report.album import Album
from batcher.show.report.report import spread_places

_AT_ONCE: Final = 8
"""Originals that are fetched at once."""
_MOST: Final = 64 * 2**20
"""Bytes of an original."""
_LONGEST: Final = 120.0
"""Seconds that one may take."""
_GOOD: Final = 200
"""HTTP status of a file that is there."""

Told = Callable[[int, int], None]


def remote_originals(out: Path, most: int) -> list[str]:
    """Return the URLs of the originals of the jobs that a report of so many shows, each once, in their order."""
    with Reader(out) as reader:
        jobs = reader.shown(spread_places(reader.listed_places(), most))
        found = (source for job, _ in jobs for source in job.spec.sources if source.startswith(("https://", "http://")))
        return list(dict.fromkeys(found))


async def fetch_originals(out: Path, urls: Iterable[str], told: Told | None = None) -> int:
    """Put the originals that are not there yet into the run directory's album; return how many could not be had.

    They are fetched as outputs are: without the token, and from no address of a private network.
    """
    album = Album(out)
    wanted = [url for url in urls if album.by_url(url) is None]
    wire = http_wire(remote())
    places, missed, done = asyncio.Semaphore(_AT_ONCE), 0, 0

    async def one(url: str) -> None:
        nonlocal missed, done
        async with places:
            content = await _content(wire, url)
            kept = content is not None and await asyncio.to_thread(album.keep, url, content)
        missed, done = missed + (not kept), done + 1
        if told:
            told(done, len(wanted))

    try:
        await asyncio.gather(*map(one, wanted))
    finally:
        await wire.close()
        album.close()
    return missed


async def _content(wire: Wire, url: str) -> bytes | None:
    """Return an original's bytes; None where it cannot be had, or is too large."""
    try:
        async with asyncio.timeout(_LONGEST), wire.download(url) as download:
            if isinstance(download, WireFault) or download.status != _GOOD:
                return None
            blocks, total = [], 0
            async for block in download.blocks:
                blocks.append(block)
                total += len(block)
                if total > _MOST:
                    return None
            return b"".join(blocks)
    except (OSError, TimeoutError):
        return None
