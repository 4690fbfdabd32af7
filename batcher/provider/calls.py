"""What goes to a provider and what comes back, as values: bytes and facts, no meaning. Knows no HTTP library."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

REPLY_LIMIT: Final = 16 * 2**20
"""Bytes of an answer that are read, unless a call says otherwise."""
RESULT_LIMIT: Final = 2 * 2**30
"""A result may carry its media as data URIs: these go to files as they come, where there is a folder for them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the API. `path` begins with a slash; `timeout` in seconds."""

    method: str
    path: str
    body: bytes | None = None
    timeout: float = 30.0
    limit: int = REPLY_LIMIT
    """Most bytes of the answer that are read."""
    once: bool = False
    """It must not be sent twice: a fresh connection of its own."""
    fresh: bool = False
    """What answered before is not trusted: a fresh connection, and no answer of a cache."""
    aside: Path | None = None
    """Where the data URIs of a large answer go."""
    of_result: bool = False
    """It asks for a result, whose refusal says something too: what has not ended has none."""
    account: bool = False
    """It goes to the base of what belongs to the account, where that is another than the API's."""
    follow: str = ""
    """A URL that the server gave for this call: it stands for the path where it leads to the API's own host."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those that every call has."""


def target(call: Call, base: str, account: str = "") -> str:
    """Return the URL that a call goes to: one that the server gave only where its host and port are the API's own.

    The token goes with each call: a URL that leads elsewhere is not followed.
    """
    if call.follow and is_below(call.follow, base):
        return call.follow
    return (account or base if call.account else base) + call.path


def is_below(url: str, base: str) -> bool:
    """Return whether a URL leads to the scheme, the host and the port of a base, and names no user."""
    try:
        there, here = urlsplit(url), urlsplit(base)
        ports = (there.port or _PORTS.get(there.scheme), here.port or _PORTS.get(here.scheme))
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and "@" not in there.netloc
    return plain and (there.scheme, there.hostname) == (here.scheme, here.hostname) and ports[0] == ports[1]


_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `whole` is false where the connection broke within the body, or the limit was passed."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    whole: bool = True
    aside: tuple[Path, ...] = ()
    """Files of the data URIs that were taken out of it: `aside:N` stands for the N-th."""


@dataclass(frozen=True, slots=True)
class WireFault:
    """No answer came. `sent`: a byte of a submission may have left; nobody asks it of what can be repeated."""

    sent: bool
    message: str
    never: bool = False
    """The URL leads nowhere that a file is fetched from, however often it is tried."""
    came: bytes = b""
    """What came over a connection of a single request, and could not be read as HTTP."""


@dataclass(slots=True)
class Download:
    """A file on its way: its status, the length announced, and its bytes in blocks."""

    status: int
    length: int | None
    blocks: AsyncIterator[bytes] = field(repr=False)


class Wire(Protocol):
    """The way to the server. It never raises for what a network does."""

    sent: int
    """Calls to the API so far."""

    async def send(self, call: Call) -> Answer | WireFault:
        """Send one call to the API."""
        ...

    def download(self, url: str) -> AbstractAsyncContextManager[Download | WireFault]:
        """Open a file at any host, without the token. Reading its blocks raises OSError where it breaks off."""
        ...

    def on_suspend(self) -> None:
        """Return what is on its way more time: this process was stopped, or the machine slept."""
        ...

    async def refresh(self) -> None:
        """Drop connections that may have died unnoticed; submissions on their way keep theirs."""
        ...

    async def close(self) -> None:
        """Drop all connections."""
        ...
