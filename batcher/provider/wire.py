"""Carries a call to the server and brings back what came: bytes and facts, no meaning."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final, Protocol

import aiohttp

REPLY_LIMIT: Final = 16 * 2**20
RESULT_LIMIT: Final = 256 * 2**20
"""A result may carry its media as data URIs."""
BLOCK: Final = 2**20


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `whole` is false where the connection broke within the body, or the limit was passed."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class WireFault:
    """No answer came. `sent`: a byte of the request may have left."""

    sent: bool
    message: str


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

    async def close(self) -> None:
        """Drop all connections."""
        ...


class HttpWire:
    """The wire over aiohttp.

    Submissions have a session whose connections are used once: a kept-alive one that the server closes while
    a POST is on its way would make a job uncertain for nothing. The token goes on each request, on no session.
    """

    def __init__(self, base: str, token: str) -> None:
        self._base = base
        self.sent = 0
        """Calls to the API so far."""
        self._authorization = {"Authorization": f"Bearer {token}"}
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_sent)
        self._once = _session(aiohttp.TCPConnector(limit=0, force_close=True), trace)
        self._reads = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=30), trace)
        self._files = _session(aiohttp.TCPConnector(limit=0))

    async def send(self, call: Call) -> Answer | WireFault:
        """Send one call to the API."""
        self.sent += 1
        session = self._once if call.once else self._reads
        headers = dict(self._authorization)
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        trace = SimpleNamespace(sent=False)
        body, response = bytearray(), None
        try:
            async with (
                asyncio.timeout(call.timeout),
                session.request(
                    call.method,
                    self._base + call.path,
                    data=call.body,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                ) as response,
            ):
                whole = await _read(response, body, call.limit)
                return Answer(response.status, _lower(response.headers), bytes(body), whole)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: not HTTP at all
            if response is not None and body:  # cut off: what had come may hold the request id
                return Answer(response.status, _lower(response.headers), bytes(body), whole=False)
            return WireFault(trace.sent, _words(error))

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        """Open a file at any host, without the token."""
        try:
            timeout = aiohttp.ClientTimeout(sock_connect=20, sock_read=60)
            response = await self._files.get(url, timeout=timeout, headers={"Accept-Encoding": "identity"})
        except (aiohttp.ClientError, OSError, ValueError) as error:
            yield WireFault(sent=True, message=_words(error))
            return
        async with response:
            yield Download(response.status, response.content_length, _blocks(response))

    async def close(self) -> None:
        """Drop all connections."""
        for session in (self._once, self._reads, self._files):
            await session.close()


def _session(connector: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    """Make a session without cookies: with a trace for the API; without one for files, kept as they come."""
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=list(traces),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=20),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=bool(traces),
    )


async def _note_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    """Take note: aiohttp calls this just before the first byte is written: from here on the request may have left."""
    context.trace_request_ctx.sent = True


async def _read(response: aiohttp.ClientResponse, body: bytearray, limit: int) -> bool:
    """Read a body into `body`, up to the limit; say whether that was all of it."""
    async for block in response.content.iter_chunked(64 * 1024):
        body += block
        if len(body) > limit:
            response.close()
            return False
    return True


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for block in response.content.iter_chunked(BLOCK):
            yield block
    except aiohttp.ClientError as error:
        raise ConnectionError(_words(error)) from error


def readable(text: str) -> str:
    """Give a text that can be written down: half characters, which JSON and headers can carry, become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {readable(name.lower()): readable(value) for name, value in headers.items()}


def _words(error: BaseException) -> str:
    text = readable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
