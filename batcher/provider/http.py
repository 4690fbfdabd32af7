"""Carries a call to the server and brings back what came: bytes and facts, no meaning."""

import asyncio
import errno
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from batcher.errors import WrongUse
from batcher.provider.addresses import barred
from batcher.provider.calls import REPLY_LIMIT, Answer, Call, Download, WireFault, target
from batcher.provider.content_encoding import unpacked
from batcher.provider.damaged_json import readable
from batcher.provider.data_uri_extractor import DataUriExtractor
from batcher.provider.provider import Traits
from batcher.provider.proxies import Proxies
from batcher.provider.redaction import Redactor, without_passwords
from batcher.version import __version__

_IN_MEMORY: Final = 256 * 2**20
"""Of an answer whose data URIs have no folder."""
_SMALL: Final = 8 * 2**20
"""An answer up to this size stays in memory as it is."""
BLOCK: Final = 2**18
"""Bytes that are handed to a file at once."""
_SILENT: Final = 60.0
"""Seconds without a byte of a body."""
MERCY: Final = 30.0
"""Seconds that what is on its way gets after a time in which nothing could be heard."""
_KEPT: Final = 64 * 2**10
"""Bytes of an answer that are kept though it is not HTTP."""
_RAW: ContextVar[bytearray | None] = ContextVar("raw", default=None)
"""Where the connection that is made for a request puts what comes over it."""
_REFUSED: Final = 401
"""HTTP status of a token that is not accepted."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
"""Redirects that are followed for one file."""
_UNSENDABLE: Final = frozenset("\r\n\0")
"""Characters that no header can carry."""
_HOST: Final = re.compile(r"[^\s\x00-\x1f\x7f*]+")
USER_AGENT: Final = f"batcher/{__version__}"
_BARRED: Final = "is an address of a private network: no file is fetched from there"


@dataclass(frozen=True, slots=True)
class Network:
    """How hosts are reached from this machine."""

    proxies: Proxies = field(default_factory=Proxies)
    connections: int = 0
    """The most that each pool has at once, 0: any number."""


class HttpWire:
    """The wire over aiohttp.

    Submissions have a session whose connections are used once: a kept-alive one that the server closes while
    a POST is on its way would make a job uncertain for nothing. The token goes on each request, on no session.
    """

    def __init__(
        self,
        base: str,
        token: str,
        renewed: Callable[[], str] | None = None,
        *,
        account: str = "",
        traits: Traits | None = None,
        network: Network | None = None,
    ) -> None:
        """`account`: the base URL of calls that belong to the account, where that is another.

        `traits`: of the provider, whose own file hosts may be reached through a proxy.
        """
        network = network or Network()
        self._connections = network.connections
        self._authorization = traits.authorization if traits else "Bearer"
        """What stands before the token in its header."""
        self._base = base
        self._account = account
        self._token = token
        self._redactor = Redactor(token)
        self._renewed = renewed
        """Reads the token once more, where it was refused: it may have been renewed since."""
        self._proxies = network.proxies
        self._proxy = {one: self._proxies.of(one) for one in {base, account} - {""}}
        """By base URL."""
        self._hosts = traits.file_hosts if traits else ()
        self._own: frozenset[str] | None = None
        """The API host's addresses: files may come from there, wherever it is."""
        self._limits: set[asyncio.Timeout] = set()
        self.sent = 0
        """Calls to the API so far."""
        self._trace = aiohttp.TraceConfig()
        self._trace.on_request_headers_sent.append(_note_sent)
        once = _Keeping(limit=network.connections, force_close=True)
        self._once = _session(once, self._trace)  # compressed as it comes: what is damaged is read as far as it goes
        self._open_for_reading()

    def _open_for_reading(self) -> None:
        reads = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30)
        self._reads = _session(reads, decompresses=True)
        files = aiohttp.TCPConnector(limit=self._connections, socket_factory=self._socket)
        self._files = _session(files, files=True)
        self._proxied_files = _session(aiohttp.TCPConnector(limit=self._connections), files=True)

    async def send(self, call: Call) -> Answer | WireFault:
        """Send one call to the API; once more if the token was refused, and there is another by now."""
        used = self._token
        answer = await self._send(call)
        if isinstance(answer, Answer) and answer.status == _REFUSED and await self._has_another_than(used):
            return await self._send(call)
        return answer

    async def _has_another_than(self, used: str) -> bool:
        """Read the token again; return whether it has changed."""
        if self._token != used:
            return True
        found = await asyncio.to_thread(self._renewed) if self._renewed else ""
        if not found or found == used or not _UNSENDABLE.isdisjoint(found):
            return False
        self._token, self._redactor = found, Redactor(found)
        return True

    async def _send(self, call: Call) -> Answer | WireFault:
        self.sent += 1
        once = call.once or call.fresh
        session = self._once if once else self._reads
        if not _UNSENDABLE.isdisjoint(self._token):  # refused only when the request is counted as sent
            return WireFault(sent=False, message="the token has a character that no header can carry")
        headers = {"Authorization": f"{self._authorization} {self._token}"}
        if once:
            headers["Accept-Encoding"] = "identity"
        if call.fresh:
            headers["Cache-Control"] = "no-cache"
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        headers |= call.headers
        trace = SimpleNamespace(sent=False)
        body, response, raw = bytearray(), None, bytearray()
        _RAW.set(raw if once else None)
        limit = asyncio.timeout(call.timeout)
        self._limits.add(limit)  # none is counted in which nothing could be heard
        try:
            async with (
                limit,
                session.request(
                    call.method,
                    URL(target(call, self._base, self._account), encoded=bool(call.follow)),
                    data=call.body,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                    proxy=self._proxy[self._account if call.account and self._account else self._base],
                ) as response,
            ):
                if call.aside and (response.content_length or _SMALL + 1) > _SMALL:
                    return await self._extracted(response, body, call.aside, call.limit)
                whole = await _read(response, body, min(call.limit, _IN_MEMORY))
                return self._answer(response, body, whole=whole, packed=once)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: not HTTP at all
            if response is not None:
                body += _unread(response)
            if response is not None and body:  # cut off: what had come may hold the request id
                return self._answer(response, body, whole=False, packed=once)
            return WireFault(trace.sent, self._redactor.text(_words(error)), came=self._redactor.content(bytes(raw)))
        finally:
            self._limits.discard(limit)

    async def _extracted(self, response: aiohttp.ClientResponse, body: bytearray, folder: Path, limit: int) -> Answer:
        """Read an answer that may be large: what is long in it goes to files, and the rest is as short as any."""
        whole = await _read(response, body, _SMALL, close=False)
        if whole:
            return self._answer(response, body, whole=True)
        extractor, total, blocks, held = DataUriExtractor(folder, body), _SMALL, [b""], 0
        try:
            async for block in response.content.iter_any():
                blocks.append(block)
                total, held = total + len(block), held + len(block)
                if held >= BLOCK:
                    await _feed(extractor, blocks)
                    blocks, held = [], 0
                if total > limit or len(body) > REPLY_LIMIT:
                    response.close()
                    extractor.drop()
                    return self._answer(response, body, whole=False)
            await _feed(extractor, blocks)
        except BaseException:
            extractor.drop()
            raise
        extractor.close()
        return replace(self._answer(response, body, whole=True), aside=tuple(extractor.files))

    def _answer(
        self, response: aiohttp.ClientResponse, body: bytearray, *, whole: bool, packed: bool = False
    ) -> Answer:
        """Make an answer of what came, without our token should the server send it back: answers are written down."""
        if packed:
            body = bytearray(unpacked(bytes(body), response.headers.get("Content-Encoding", ""), REPLY_LIMIT))
        headers = _lower(response.headers)
        values = "\n".join(headers.values())
        if self._redactor.text(values) is not values:
            headers = {name: self._redactor.text(value) for name, value in headers.items()}
        return Answer(response.status, headers, self._redactor.content(bytes(body)), whole)

    def on_suspend(self) -> None:
        """Allow more time to what is on its way."""
        soonest = asyncio.get_running_loop().time() + MERCY
        for limit in self._limits:
            if not limit.expired() and (limit.when() or soonest) < soonest:
                limit.reschedule(soonest)

    async def refresh(self) -> None:
        """Drop connections that may have died unnoticed; submissions on their way keep theirs."""
        old = (self._reads, self._files, self._proxied_files)
        self._open_for_reading()
        for session in old:
            await session.close()

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Make the socket of a connection to a file host, if its address is one that files are fetched from."""
        family, kind, protocol, _, where = address
        if barred(str(where[0]), self._own or ()):
            raise OSError(errno.EACCES, f"{where[0]} {_BARRED}")
        return socket.socket(family, kind, protocol)

    async def _know_own_addresses(self) -> None:
        if self._own is None:
            host = urlsplit(self._base).hostname or ""
            with suppress(OSError):  # asked again with the next file
                found = await asyncio.get_running_loop().getaddrinfo(host, None)
                self._own = frozenset(str(one[4][0]) for one in found)

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        """Open a file at any host, without the token."""
        await self._know_own_addresses()
        try:
            response = await self._open(url)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            words = _words(error)
            never = isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError)
            yield WireFault(sent=True, message=words, never=never or _BARRED in words)
            return
        if isinstance(response, WireFault):
            yield response
            return
        async with response:
            yield Download(response.status, response.content_length, _blocks(response))

    async def _open(self, url: str) -> aiohttp.ClientResponse | WireFault:
        """Ask for a file, and follow where that leads, each step looked at. Raises what aiohttp does, ValueError."""
        timeout = aiohttp.ClientTimeout(sock_connect=20, sock_read=60)
        target = URL(url.strip())
        for _ in range(_MOST_REDIRECTS + 1):
            if target.scheme not in {"http", "https"} or not target.host or not _HOST.fullmatch(target.host):
                return WireFault(sent=True, message=f"{str(target)[:100]} is not an http URL with a host", never=True)
            proxy = self._proxies.of(str(target))
            if proxy and (fault := await self._refused_to_proxy(target.host)):
                return fault
            session = self._proxied_files if proxy else self._files
            response = await session.get(
                target,
                timeout=timeout,
                headers={"Accept-Encoding": "identity"},
                allow_redirects=False,
                proxy=proxy,
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.release()
            target = target.join(URL(location))
        return WireFault(sent=True, message=f"more than {_MOST_REDIRECTS} redirects, one to the next", never=True)

    async def _refused_to_proxy(self, host: str) -> WireFault | None:
        """Return why a proxy is not asked for a file of this host, None where it is.

        What it would connect to cannot be seen from here: so it is asked for the provider's own hosts, and for names
        that are of the public internet for this machine too.
        """
        own = host == urlsplit(self._base).hostname or f".{host}".endswith(self._hosts)
        if own:
            return None
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None)
        except OSError as error:
            return WireFault(sent=True, message=f"{host} is not known here, and no host of the API's own: {error}")
        for one in found:
            if barred(address := str(one[4][0]), self._own or ()):
                return WireFault(sent=True, message=f"{address} {_BARRED}", never=True)
        return None

    async def close(self) -> None:
        """Drop all connections."""
        for session in (self._once, self._reads, self._files, self._proxied_files):
            await session.close()


class _KeepingHandler(ResponseHandler):
    """Keeps the first bytes of an answer: what is no HTTP is an error without them, and may name a request id."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._raw = _RAW.get()

    def data_received(self, data: bytes) -> None:
        if self._raw is not None and len(self._raw) < _KEPT:
            self._raw += data
        super().data_received(data)


class _Keeping(aiohttp.TCPConnector):
    """Makes connections that keep what came; each is of one request."""

    def __init__(self, *, limit: int, force_close: bool) -> None:
        super().__init__(limit=limit, force_close=force_close)
        self._factory: Any = partial(_KeepingHandler, self._loop)


def _session(
    connector: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig, decompresses: bool = False, files: bool = False
) -> aiohttp.ClientSession:
    """Make a session without cookies. A trace tells whether a request may have left, and costs a tenth of it."""
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=list(traces),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=20),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        auto_decompress=decompresses,
        read_bufsize=BLOCK if files else 64 * 1024,
    )


async def _note_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    """Record that the request may have left: aiohttp calls this just before the first byte is written."""
    context.trace_request_ctx.sent = True


async def _read(response: aiohttp.ClientResponse, body: bytearray, limit: int, *, close: bool = True) -> bool:
    """Read a body into `body`, up to the limit and a block; return whether that was all of it."""
    async for block in response.content.iter_chunked(64 * 1024):
        body += block
        if len(body) > limit:
            if close:
                response.close()
            return False
    return True


def _unread(response: aiohttp.ClientResponse) -> bytes:
    """Return what came of a body before the connection broke, and that aiohttp holds back for the sake of the error."""
    return b"".join(getattr(response.content, "_buffer", ()))


async def _feed(extractor: DataUriExtractor, blocks: Sequence[bytes]) -> None:
    """Feed blocks to an extractor. The disk's own error is not the network's: raises WrongUse."""
    try:
        await asyncio.to_thread(extractor.feed, b"".join(blocks))
    except OSError as error:
        raise WrongUse(f"what came within a result cannot be written: {error}") from error


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        while True:
            async with asyncio.timeout(_SILENT):  # aiohttp's own limit is gone once a session is closed under a reader
                block = await response.content.readany()
            if not block:
                return
            yield block
    except aiohttp.ClientError as error:
        if not str(error).endswith("'>") or "ContentLengthError" not in str(error):
            raise ConnectionError(_words(error)) from error
        # else the server ended it in good order, and too soon: what follows that text is how a connection broke
    except (TimeoutError, RuntimeError) as error:  # nothing came, or the session was closed under it
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {readable(name.lower()): readable(value) for name, value in headers.items()}


def _words(error: BaseException) -> str:
    text = without_passwords(readable(" ".join(str(error).split())))
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
