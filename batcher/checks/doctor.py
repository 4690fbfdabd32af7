"""What can be known before the night: token, reach, balance, clock, space, images. Submits nothing."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from batcher.clock import Clock, from_rfc3339, rfc3339
from batcher.provider.calls import Answer, Download, Wire, WireFault
from batcher.provider.provider import Provider
from batcher.provider.replies import Reached, Unauthorized, Unavailable
from batcher.provider.sign_in import FoundToken

MOST_IMAGES: Final = 10_000
"""Remote images that are looked at; of more, so many spread evenly."""
_AT_ONCE: Final = 32
"""Images that are asked for at once."""
_SKEW: Final = 60.0
"""Seconds that the machine's clock may differ from the server's."""
_SOON: Final = 12 * 3600.0
"""Seconds: a token that expires within a night is said to."""
_OUTPUT_BYTES: Final = 8 * 2**20
"""Generous for one output of 4K."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `ok` None: it could not be told."""

    name: str
    ok: bool | None
    message: str
    hint: str = ""
    each: tuple[str, ...] = ()
    """What is wrong, one by one, where there are several."""


def good(name: str, message: str) -> Check:
    """Make a check that found nothing wrong."""
    return Check(name, ok=True, message=message)


def bad(name: str, message: str, hint: str) -> Check:
    """Make a check that found something, and say what helps."""
    return Check(name, ok=False, message=message, hint=hint)


def unknown(name: str, message: str) -> Check:
    """Make a check that could not tell."""
    return Check(name, ok=None, message=message)


def token(found: FoundToken, api: Provider, now: float) -> Check:
    """Check that there is a token, and that it does not end within the night."""
    if not found.secret:
        return bad("token", "there is none", api.traits.token_hint)
    if found.problem:
        return bad("token", found.problem, "copy it again, without what is not part of it")
    ends = from_rfc3339(found.expires_at) if found.expires_at else None
    if ends is None:
        return good("token", f"found: {found.source}")
    if ends <= now:
        return bad("token", f"{found.source}: it expired at {rfc3339(ends)}", "sign in again")
    if ends - now < _SOON:
        message = f"{found.source}: it expires at {rfc3339(ends)}, within the night"
        return bad("token", message, "renew it before the run")
    return good("token", f"found: {found.source}; it expires at {rfc3339(ends)}")


async def reach(wire: Wire, api: Provider, clock: Clock) -> AsyncIterator[Check]:
    """Ask the API for next to nothing: does it answer, does it take the token, does its clock agree with ours."""
    answer = await wire.send(api.probe())
    now = clock.now()
    if isinstance(answer, WireFault):
        yield bad("api", f"not reached: {answer.message}", "look at the network, a proxy, or the vendor's status")
        return
    match api.read_probe(answer):
        case Unauthorized(message):
            yield bad("api", f"reached, and it refuses the token ({message})", "look at the token")
        case Unavailable(message):
            yield bad("api", f"reached, and it answers {message}", "look at the vendor's status")
        case Reached():
            yield good("api", "reached; it accepts the token")
    yield _clock(answer, now)


def _clock(answer: Answer, now: float) -> Check:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return unknown("clock", "the server does not say what time it is")
    skew = now - theirs
    if abs(skew) > _SKEW:
        words = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
        return bad("clock", words, "set the time: stamps would be wrong, and signed URLs may be refused")
    return good("clock", "agrees with the server's")


async def balance(wire: Wire, api: Provider, needed_usd: float | None) -> Check:
    """Compare what is left in the account with what a manifest may cost."""
    left = api.read_balance(await wire.send(api.balance()))
    if isinstance(left, str):
        return unknown("balance", f"not known: {left}")
    if left <= 0 or (needed_usd is not None and left < needed_usd):
        words = f"${left:,.2f} is left" + (f", and the manifest may cost ${needed_usd:,.2f}" if needed_usd else "")
        return bad("balance", words, "top up, or set --max-cost: a run stops without loss when it is empty")
    return good("balance", f"${left:,.2f} is left" + (f", of which ${needed_usd:,.2f} is needed" if needed_usd else ""))


def space(folder: Path, outputs: int) -> Check:
    """Compare the free space where results go with what they may take."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    inodes = os.statvfs(folder).f_favail
    needed = max(64 * 2**20, outputs * _OUTPUT_BYTES)
    words = f"{free / 1e9:,.1f} GB free"
    if free < needed:
        return bad("space", f"{words}, and {outputs:,} outputs may take {needed / 1e9:,.1f} GB", "make room")
    if 0 < inodes < outputs * 2 + 1000:
        return bad("space", f"{words}, but only {inodes:,} more files can be made", "make room for files")
    return good("space", words)


async def images(wire: Wire, urls: Iterable[str]) -> Check:
    """Ask for the beginning of each remote image, as the server will, and see that it is one it takes."""
    unique = sorted(set(urls))
    step = max(1, len(unique) // MOST_IMAGES)
    looked = unique[::step][:MOST_IMAGES]
    if not looked:
        return good("images", "none is remote")
    limit = asyncio.Semaphore(_AT_ONCE)

    async def look(url: str) -> str | None:
        async with limit:
            problem = await _look(wire, url)
        return f"{url}: {problem}" if problem else None

    wrong = [one for one in await asyncio.gather(*map(look, looked)) if one]
    some = f"{len(looked):,} of {len(unique):,} remote images"
    if wrong:
        of = f"{len(looked):,} remote images" + (
            f" looked at (of {len(unique):,})" if len(looked) < len(unique) else ""
        )
        message = f"{len(wrong):,} of {of} cannot be used"
        return Check("images", ok=False, message=message, hint="their jobs would fail at the server", each=tuple(wrong))
    return good("images", f"{some} can be fetched from here")


async def _look(wire: Wire, url: str) -> str:
    """Return what is wrong with a remote image, nothing where it looks right."""
    async with wire.download(url) as got:
        if not isinstance(got, Download):
            return got.message
        if not 200 <= got.status < 300:  # noqa: PLR2004
            return f"HTTP {got.status}"
        try:
            head = b""
            async for block in got.blocks:
                head += block
                if len(head) >= _HEAD:
                    break
        except OSError as error:
            return f"it breaks off: {error}"
    return why_no_media(head, got.length)


def why_no_media(head: bytes, length: int | None) -> str:
    """Return why a file is no image or video that the API takes, by its beginning and length; nothing if it is."""
    kind = next((kind for kind, begins in _BEGINNINGS.items() if begins.match(head)), None)
    if kind is None:
        if not head:
            return "it is empty"
        start = head.lstrip()[:15].lower()
        if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
            return "it is a web page, perhaps one to sign in: the server gets the same"
        return f"it is neither image nor video: it begins with {head[:16]!r}"
    most = _MOST_BYTES[kind]
    if length is not None and length > most:
        return f"it has {length / 1e6:,.0f} MB; the API takes about {most / 1e6:.0f} MB of {kind}"
    return ""


_HEAD: Final = 64
"""Bytes that tell what a file is."""
_MOST_BYTES: Final = {"image": 50_000_000, "video": 100_000_000}
"""As the vendor recommends: images up to 50 MB, videos up to 100 MB."""
_BEGINNINGS: Final = {
    "image": re.compile(
        rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8|II\*\0|MM\0\*|BM|.{4}ftyp(avif|avis|heic|heix|mif1|msf1)",
        re.DOTALL,
    ),
    "video": re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL),
}


def facts(check: Check) -> Mapping[str, object]:
    """Write a check as JSON has it."""
    return {
        "check": check.name,
        "ok": check.ok,
        "message": check.message,
        "hint": check.hint,
        "each": [*check.each],
    }
