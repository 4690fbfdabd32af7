"""Serves the world over HTTP on loopback: bodies in, replies out, its journal on disk, pictures on demand."""

import asyncio
import base64
import hashlib
import json
import math
import os
import re
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp import web

from batcher.sandbox.access import local_only, open_socket
from batcher.sandbox.face import Face, Shell, ask
from batcher.sandbox.faces import FACES
from batcher.sandbox.faults import FaultManner, checked
from batcher.sandbox.render import render, render_video, why_unreadable
from batcher.sandbox.replies import Reply
from batcher.sandbox.world import Conditions, Request, World

HERE: Final = Path(__file__).parent
_MODEL_DIRS: Final = (HERE.parent / "catalog" / "models", HERE / "models")
MAX_BODY: Final = 96 * 2**20
"""Bytes of a request."""
_LONGEST_OUTAGE: Final = 86_400.0
"""Seconds."""
_KEPT: Final = "kept:"
"""Before the digest of an input image, in its place."""
_DIGEST: Final = re.compile("[0-9a-f]{64}")


def load_models() -> dict[str, dict[str, Any]]:
    """Read the catalogue: the client's own schema files, and a few more models."""
    files = [file for folder in _MODEL_DIRS for file in sorted(folder.glob("*.json"))]
    models = [json.loads(file.read_text("utf-8")) for file in files]
    return {model["model_id"]: model for model in models}


class SandboxFiles:
    """The sandbox's folder: its journal, and the input images, each once."""

    def __init__(self, folder: Path) -> None:
        """Its files are for the user alone: they hold the user's prompts and photos."""
        self._images = folder / "inputs"
        self._journal = folder / "journal.jsonl"
        if not folder.exists() or self._journal.exists():  # another folder of the user's is left as it is
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        self._images.mkdir(mode=0o700, exist_ok=True)
        self._images.chmod(0o700)
        self._opened = os.fdopen(os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        self._journal.chmod(0o600)

    def journal(self) -> list[dict[str, Any]]:
        """Read what was accepted before; a line cut off by a crash was never answered."""
        lines = self._journal.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry before its answer leaves."""
        self._opened.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._opened.flush()

    def put_aside(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """Keep the images of a body as files, and digests in their place."""
        if isinstance(value, str) and value.startswith("data:"):
            try:
                content = base64.b64decode(value.partition(",")[2])
            except ValueError:
                return value
            digest = hashlib.sha256(content).hexdigest()
            self._write(digest, content)
            return f"{_KEPT}{digest}"
        if isinstance(value, str) and value.startswith(_KEPT):  # a client names no file of ours
            return f"no:{value}"
        if isinstance(value, list):
            return [self.put_aside(item) for item in value]
        return {key: self.put_aside(item) for key, item in value.items()} if isinstance(value, dict) else value

    def image(self, digest: str) -> bytes | None:
        """Return an image that was put aside."""
        file = self._images / digest
        return file.read_bytes() if _DIGEST.fullmatch(digest) and file.is_file() else None

    def keep(self, url: str, content: bytes) -> None:
        """Keep what was fetched from a URL."""
        self._write(hashlib.sha256(url.encode()).hexdigest(), content)

    def _write(self, name: str, content: bytes) -> None:
        if (self._images / name).exists():
            return
        fd, draft = tempfile.mkstemp(dir=self._images)  # another request with this image may be reading it
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        Path(draft).replace(self._images / name)

    def fetched(self, url: str) -> bytes | None:
        """Return what was fetched from a URL before."""
        file = self._images / hashlib.sha256(url.encode()).hexdigest()
        return file.read_bytes() if file.exists() else None


class Sandbox:
    """The HTTP shell around one world."""

    def __init__(self, conditions: Conditions, folder: Path, face: Face) -> None:
        self._face = face
        self._store = SandboxFiles(folder)
        self.world = World(conditions, load_models())
        self.world.replay(self._store.journal())
        self._written = len(self.world.journal)
        self._pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2) - 1))
        self._tries: dict[str, int] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        """At the input images of a request: fetched where they are URLs, and decoded, as the real server would."""
        self._seen: dict[str, str] = {}
        """By digest, what is wrong with an input image; nothing where it can be decoded."""
        self.base = ""
        self.outages: asyncio.Queue[tuple[float, float]] = asyncio.Queue()
        """To come, one after the other: seconds from now, and how long."""

    def app(self) -> web.Application:
        """Return the routes: what is for tests and files, and all else as the protocol has it."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[local_only])
        app.router.add_get("/files/{id}/{name}", self._file)
        app.router.add_get("/journal", self._journal)
        app.router.add_post("/faults", self._set_faults)
        app.router.add_post("/outage", self._begin_outage)
        app.router.add_route("*", "/{path:.*}", self._speak)
        return app

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        """Answer in the protocol's words."""
        body = await self._body_of(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = ask(request.method, request.rel_url.raw_path_qs, headers, body)
        within = await self._prepare(self._face.result_of(asked))

        def file(job: Request, index: int, suffix: str) -> str:
            base = "file:///sandbox" if job.fault == "file_scheme" else self.base
            return within.get((job.id, index)) or f"{base}/files/{quote(job.id, safe='')}/{index}.{suffix}"

        reply = self._face.answer(self.world, asked, Shell(time.time(), self.base, file))
        if reply is None:
            raise web.HTTPNotFound
        for entry in self._write_journal():
            self._look_at_inputs(str(entry["id"]), body if isinstance(body, dict) else {})
        return await self._answer(request, reply)

    async def _body_of(self, request: web.Request) -> object:
        """Return the JSON of a request with its images put aside, None where it has none."""
        if not request.can_read_body:
            return None
        try:
            body = await request.json()
        except ValueError:
            return None
        if not isinstance(body, dict):
            return body
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._store.put_aside, body)

    async def _prepare(self, request_id: str | None) -> dict[tuple[str, int], str]:
        """Wait until the images of a request were looked at whose result is asked for.

        Return the outputs that come within the result, as data URIs, of a request that wants them so.
        """
        if request_id is None:
            return {}
        if look := self._looks.get(request_id):
            await asyncio.wait({look})
        job = self.world.request(request_id)
        if job is None or job.inputs.get("sync_mode") is not True:
            return {}
        content = [await self._render(request_id, index) for index in range(1, job.count + 1)]
        return {
            (request_id, index): f"data:image/png;base64,{base64.b64encode(one).decode()}"
            for index, one in enumerate(content, start=1)
        }

    async def _journal(self, _: web.Request) -> web.StreamResponse:
        """Return what was accepted, for tests that compare it with a ledger."""
        return web.json_response(self.world.journal)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        request_id, index = request.match_info["id"], request.match_info["name"].partition(".")[0]
        job = self.world.request(request_id)
        if job is None or job.ended_at is None or job.error or not index.isdigit() or int(index) > job.count:
            raise web.HTTPNotFound
        content = await self._render(request_id, int(index))
        key = f"{request_id}/{index}"
        self._tries[key] = self._tries.get(key, 0) + 1
        fault = self.world.file_fault(request_id, int(index), self._tries[key])
        return await self._send_file(request, content, fault)

    async def _send_file(self, request: web.Request, content: bytes, fault: str | None) -> web.StreamResponse:
        match fault:
            case "file_late":
                raise web.HTTPForbidden
            case "file_gone":
                raise web.HTTPGone
            case "file_500":
                raise web.HTTPInternalServerError
            case "file_loop":
                raise web.HTTPFound(str(request.url))
            case "file_wrong":
                content = b"this is not an image, whatever was promised\n"
            case "file_bomb":
                content = bomb()
            case "file_away" if "127.0.0.1" in request.host:
                raise web.HTTPFound(str(request.url.with_host("localhost")))
            case "tear" | "file_short":
                return await _send_half(request, content, abruptly=fault == "tear")
        return web.Response(body=content)

    async def _answer(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Send an answer in its manner."""
        content = reply.content()
        headers = {"Content-Type": "application/json", **reply.headers}
        match reply.manner:
            case FaultManner.NEVER:
                _hang_up(request)
            case FaultManner.NOT_HTTP:
                if request.transport is not None:
                    request.transport.write(content)
                    request.transport.close()
            case FaultManner.CUT:
                headers["Content-Length"] = str(len(content) + 1000)
                return await _send_in_parts(request, [content], headers, 0.0)
            case FaultManner.SLOW:
                return await _send_in_parts(
                    request, [content[n : n + 8] for n in range(0, len(content), 8)], headers, 0.02
                )
        return web.Response(body=content, status=reply.status or 200, headers=headers)

    def _write_journal(self) -> list[Mapping[str, Any]]:
        """Write down what was accepted and cancelled since; return what was accepted."""
        fresh = self.world.journal[self._written :]
        for entry in fresh:
            self._store.append(entry)
        self._written = len(self.world.journal)
        return [entry for entry in fresh if "inputs" in entry]

    async def _set_faults(self, request: web.Request) -> web.StreamResponse:
        """Change at run time what goes wrong, and how often."""
        try:
            self.world.faults = checked({name: float(share) for name, share in (await request.json()).items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return web.json_response(self.world.faults)

    async def _begin_outage(self, request: web.Request) -> web.StreamResponse:
        """Refuse connections for some seconds from now on."""
        try:
            seconds = float((await request.json())["seconds"])
        except (ValueError, TypeError, KeyError):
            raise web.HTTPBadRequest(text='write {"seconds": 60}') from None
        if not 0 <= seconds <= _LONGEST_OUTAGE:
            raise web.HTTPBadRequest(text=f"an outage lasts from 0 to {_LONGEST_OUTAGE:,.0f} seconds")
        self.outages.put_nowait((0.0, seconds))
        return web.json_response({})

    async def _render(self, request_id: str, index: int) -> bytes:
        job = self.world.request(request_id)
        if job is None:
            raise web.HTTPNotFound
        photos = [photo for photo in map(self._photo, _texts(job.inputs)) if photo]
        video = "video" in str(self.world.models[job.model].get("categories"))
        loop = asyncio.get_running_loop()
        if video:
            return await loop.run_in_executor(self._pool, render_video, job.inputs, photos)
        return await loop.run_in_executor(self._pool, render, job.inputs, photos, index)

    def _photo(self, text: str) -> bytes | None:
        if text.startswith(_KEPT):
            return self._store.image(text.removeprefix(_KEPT))
        return self._store.fetched(text) if text.startswith(("http://", "https://")) else None

    def _look_at_inputs(self, request_id: str, body: Mapping[str, Any]) -> None:
        images = [text for text in _texts(body) if text.startswith((_KEPT, "http://", "https://"))]
        if images:
            task = self._looks[request_id] = asyncio.create_task(self._look(request_id, images))
            task.add_done_callback(lambda _: self._looks.pop(request_id, None))

    async def _look(self, request_id: str, images: list[str]) -> None:
        """Fail a request whose images cannot be fetched or decoded."""
        await self._fetch(request_id, [text for text in images if not text.startswith(_KEPT)])
        for text in images:
            content = self._photo(text)
            if content is None:
                continue
            digest = hashlib.sha256(content).hexdigest()
            if digest not in self._seen:
                loop = asyncio.get_running_loop()
                self._seen[digest] = await loop.run_in_executor(self._pool, why_unreadable, content)
            if why := self._seen[digest]:
                self.world.fail(request_id, f"an input image cannot be decoded: {why}")

    async def _fetch(self, request_id: str, urls: list[str]) -> None:
        """Fetch the input images as the real server would; a job whose image is not to be had fails."""
        connector = aiohttp.TCPConnector(socket_factory=open_socket)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
            for url in urls:
                if self._store.fetched(url) is not None:
                    continue
                try:
                    async with session.get(url) as response:
                        response.raise_for_status()
                        self._store.keep(url, await response.read())
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    self.world.fail(request_id, f"the input image {url} could not be fetched: {error}")


def _texts(value: object) -> list[str]:
    """Return every text in a body, in order."""
    if isinstance(value, str):
        return [value]
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return [text for item in items for text in _texts(item)]


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _send_half(request: web.Request, content: bytes, *, abruptly: bool) -> web.StreamResponse:
    """Announce a file, send half of it, and break off: with a reset, or with a clean end."""
    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        opened = request.transport.get_extra_info("socket")
        if abruptly and opened is not None:  # a reset, which throws away what is on its way
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        (request.transport.abort if abruptly else request.transport.close)()
    return response


async def _send_in_parts(
    request: web.Request, parts: list[bytes], headers: Mapping[str, str], pause: float
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for part in parts:
        await response.write(part)
        await asyncio.sleep(pause)
    if "Content-Length" in headers and request.transport is not None:  # more was announced than came
        request.transport.close()
    return response


def bomb() -> bytes:
    """Make a PNG of 13,000 x 13,000 pixels that is small only as a file."""
    side = 13_000

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def serve(
    conditions: Conditions,
    folder: Path,
    port: int,
    outages: Sequence[tuple[float, float]] = (),
    *,
    until_stdin_ends: bool,
    protocol: str = "runcomfy",
) -> None:
    """Serve until the parent's end of standard input closes, or until cancelled. The first line says where."""
    sandbox = Sandbox(conditions, folder, FACES[protocol])
    runner = web.AppRunner(sandbox.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    sandbox.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(sandbox.base, flush=True)  # noqa: T201 - read by whoever started it
    for begins, ends in outages:
        sandbox.outages.put_nowait((begins, ends - begins))
    keeper = asyncio.create_task(_keep_outages(sandbox, runner, site, runner.addresses[0][1]))
    try:
        if until_stdin_ends:
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        else:
            await asyncio.Event().wait()
    finally:
        keeper.cancel()
        await runner.cleanup()


async def _keep_outages(sandbox: Sandbox, runner: web.AppRunner, site: web.TCPSite, port: int) -> None:
    """Stop listening when an outage begins, and listen on the same port when it is over."""
    begun = asyncio.get_running_loop().time()
    while True:
        after, seconds = await sandbox.outages.get()
        await asyncio.sleep(max(0.0, begun + after - asyncio.get_running_loop().time()) if after else 0.1)
        await site.stop()
        await asyncio.sleep(seconds)
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()


def balance(text: str) -> float:
    """Read a balance; `none` is without end."""
    return math.inf if text == "none" else float(text)
