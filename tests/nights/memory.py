"""The in-memory wire around the sandbox's world: the same world, the same client, no sockets, simulated time."""

import asyncio
import json
import math
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from batcher.provider.wire import Answer, Call, Download, WireFault
from batcher.sandbox.world import Reply, World

TOKEN = "sandbox"


class MemoryWire:
    """`act` is called at each instant at which a process could die; `now` gives seconds since 1970."""

    def __init__(
        self, world: World, journal: Path, now: Callable[[], float], act: Callable[[str], None], seed: int
    ) -> None:
        self.sent = 0
        self._world = world
        self._journal = journal
        self._now = now
        self._act = act
        self._chance = random.Random(seed)
        self._written = len(world.journal)
        self._tries: dict[str, int] = {}

    async def send(self, call: Call) -> Answer | WireFault:
        self.sent += 1
        self._act(f"sends {call.method} {call.path}")
        await self._travel()
        reply = self._reply(call)
        self._keep()
        self._act(f"was answered {call.method} {call.path}")
        await self._travel()
        if not reply.arrives:
            return WireFault(sent=True, message="ServerDisconnectedError")
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Answer(reply.status, headers, json.dumps(reply.body).encode())

    def _reply(self, call: Call) -> Reply:
        url = urlsplit(call.path)
        parts = [unquote(part) for part in url.path.split("/") if part]
        now = self._now()
        if parts[1] == "models":
            model = "/".join(parts[2:])
            if call.method == "POST":
                return self._world.submit(model, json.loads(call.body or b"null"), TOKEN, now)
            return self._world.catalogue(model or None)
        request_id, what = parts[2], parts[3]
        if what == "status":
            return self._world.status(request_id, TOKEN, now)
        if what == "cancel":
            return self._world.cancel(request_id, TOKEN, now)
        cost = parse_qs(url.query).get("include_cost") == ["true"]
        return self._world.result(request_id, TOKEN, now, cost=cost, files="https://memory")

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        self._act(f"fetches {url}")
        await self._travel()
        _, request_id, name = url.rsplit("/", 2)
        request = self._world.request(request_id)
        if request is None or request.ended_at is None:
            yield Download(404, 0, _blocks(b"", whole=True))
            return
        content = picture(f"{request_id} {name.partition('.')[0]}")
        tries = self._tries[url] = self._tries.get(url, 0) + 1
        torn = self._world.tears(request_id, int(name.partition(".")[0]), tries)
        yield Download(200, len(content), _blocks(content[: len(content) // 2] if torn else content, whole=not torn))

    def stood_still(self) -> None:
        pass

    async def refresh(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _travel(self) -> None:
        """Take a heavy-tailed time, so that requests overtake each other."""
        await asyncio.sleep(0.02 * math.exp(self._chance.gauss(0, 1.5)))

    def _keep(self) -> None:
        """What the server accepted is kept whatever becomes of the client."""
        with self._journal.open("a") as file:
            for entry in self._world.journal[self._written :]:
                file.write(json.dumps(entry) + "\n")
        self._written = len(self._world.journal)


async def _blocks(content: bytes, *, whole: bool) -> AsyncIterator[bytes]:
    yield content
    if not whole:
        raise ConnectionResetError("reset by peer")


def picture(text: str) -> bytes:
    """Make a small PNG that only this text makes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    colour = zlib.crc32(text.encode()).to_bytes(4, "big")[:3]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    comment = b"Comment\0" + text.encode()
    body = chunk(b"IHDR", header) + chunk(b"tEXt", comment) + chunk(b"IDAT", zlib.compress(b"\0" + colour))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
