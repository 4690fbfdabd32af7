"""The in-memory wire around the sandbox's world: the same world, the same client, no sockets, simulated time."""

import asyncio
import functools
import json
import math
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from batcher.provider import PROVIDERS
from batcher.provider.calls import REPLY_LIMIT, Answer, Call, Download, WireFault, target
from batcher.sandbox.face import Shell, ask
from batcher.sandbox.faces import FACES
from batcher.sandbox.faults import FaultManner
from batcher.sandbox.replies import Reply
from batcher.sandbox.server import bomb as make_bomb
from batcher.sandbox.world import Request, World

TOKEN = "sandbox"
BASE = "https://memory"
bomb = functools.cache(make_bomb)


class MemoryWire:
    """`act` is called at each instant at which a process could die; `now` gives seconds since 1970."""

    def __init__(
        self,
        world: World,
        journal: Path,
        now: Callable[[], float],
        act: Callable[[str], None],
        seed: int,
        travel: float = 0.02,
        *,
        protocol: str = "runcomfy",
    ) -> None:
        self.sent = 0
        self._face = FACES[protocol]
        self._world = world
        self._journal = journal
        self._now = now
        self._act = act
        self._travel_time = travel
        self._chance = random.Random(seed)
        self._written = len(world.journal)
        self._struck = len(world.strikes)
        self._tries: dict[str, int] = {}

    async def send(self, call: Call) -> Answer | WireFault:
        self.sent += 1
        if self._world.down(self._now()):
            return WireFault(sent=False, message="ClientConnectorError: connection refused")
        self._act(f"sends {call.method} {call.path}")
        await self._travel()
        reply = self._reply(call)
        self.keep()
        self._act(f"was answered {call.method} {call.path}")
        await self._travel()
        headers = {name.lower(): value for name, value in reply.headers.items()}
        match reply.manner:
            case FaultManner.NEVER:
                return WireFault(sent=True, message="ServerDisconnectedError")
            case FaultManner.NOT_HTTP:
                return WireFault(sent=True, message="ClientResponseError: 400, message='Expected HTTP/'")
            case FaultManner.SLOW:
                await asyncio.sleep(5.0)
        content = reply.content()[: REPLY_LIMIT + 1]
        return Answer(
            reply.status, headers, content, len(content) <= REPLY_LIMIT and reply.manner is not FaultManner.CUT
        )

    def _reply(self, call: Call) -> Reply:
        authorization = f"{PROVIDERS[self._face.name].traits.authorization} {TOKEN}"
        headers = {name.lower(): value for name, value in call.headers.items()} | {"authorization": authorization}
        body = None if call.body is None else json.loads(call.body)
        shell = Shell(self._now(), BASE, _file)
        sent_to = target(call, BASE).removeprefix(BASE)
        reply = self._face.answer(self._world, ask(call.method, sent_to, headers, body), shell)
        assert reply is not None, f"{self._face.name} has no {call.method} {call.path}"
        return reply

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        self._act(f"fetches {url}")
        await self._travel()
        request_id, _, name = unquote(url).removeprefix("https://memory/files/").rpartition("/")
        request = self._world.request(request_id)
        if request is None or request.ended_at is None:
            yield Download(404, 0, _blocks(b"", whole=True))
            return
        index = name.partition(".")[0]
        content = picture(f"{request_id} {index}")
        tries = self._tries[url] = self._tries.get(url, 0) + 1
        fault = self._world.file_fault(request_id, int(index), tries)
        self.keep()
        if fault in {"file_late", "file_gone", "file_500"}:
            status = {"file_late": 403, "file_gone": 410}.get(fault, 500)
            yield Download(status, 0, _blocks(b"", whole=True))
            return
        if fault == "file_loop":
            yield WireFault(sent=True, message="more than 10 redirects, one to the next", never=True)
            return
        content = {"file_wrong": b"no image", "file_bomb": bomb()}.get(fault or "", content)
        torn = fault in {"tear", "file_short"}
        sent = content[: len(content) // 2] if torn else content
        yield Download(200, len(content), _blocks(sent, whole=fault != "tear"))

    def on_suspend(self) -> None:
        pass

    async def refresh(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _travel(self) -> None:
        """Take a heavy-tailed time, so that requests overtake each other."""
        await asyncio.sleep(self._travel_time * math.exp(self._chance.gauss(0, 1.5)))

    def keep(self) -> None:
        """What the server accepted is kept whatever becomes of the client; before it, which faults have struck.

        The client may die between the two: a fault that no request is known of excuses nothing.
        """
        if len(self._world.strikes) > self._struck:
            with self._journal.with_name("strikes").open("a") as file:
                file.write("".join(f"{name}\n" for name in self._world.strikes[self._struck :]))
            self._struck = len(self._world.strikes)
        with self._journal.open("a") as file:
            for entry in self._world.journal[self._written :]:
                file.write(json.dumps(entry) + "\n")
        self._written = len(self._world.journal)


def _file(request: Request, index: int, suffix: str) -> str:
    base = "file:///sandbox" if request.fault == "file_scheme" else BASE
    return f"{base}/files/{quote(request.id, safe='')}/{index}.{suffix}"


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
