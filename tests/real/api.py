"""A server written from the API's page alone, over real HTTP, with a journal of its own and answers to order."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web

from tests.nights.memory import picture

TOKEN = "secret-token-of-the-test"
Special = Callable[["Api", web.Request, dict[str, Any]], "web.StreamResponse | None"]


@dataclass
class Accepted:
    id: str
    body: dict[str, Any]
    at: float
    cancelled: bool = False


@dataclass
class Api:
    """Its state; `specials` are taken one a submission, from the front, before the usual answer."""

    delay: float = 0.1
    journal: list[Accepted] = field(default_factory=list)
    specials: list[Special | None] = field(default_factory=list)
    paid: bool = True
    bills: bool = True
    balance: float = 12.5
    queued: bool = False
    stalls: bool = False
    empty: bool = False
    busy_cancels: int = 0
    """So many cancellations are answered 429."""
    bad_files: set[str] = field(default_factory=set)
    """ID/INDEX of files that are no pictures."""
    slow_files: dict[str, float] = field(default_factory=dict)
    """ID/INDEX of a file: seconds that it takes."""
    hangs: bool = False
    """Cancellations are not answered."""
    files_down: bool = False
    outputs_after: float = 0.0
    """Seconds after its end at which a request's outputs are there."""
    mixes_up: bool = False
    """Results and states of requests are those of the first one."""
    file_statuses: dict[str, int] = field(default_factory=dict)
    """ID/INDEX of a file: what it is answered with."""
    silent_files: int = 0
    """So many come by half, and then nothing more of them."""
    bulk: int = 0
    """Bytes that follow each picture."""
    output_urls: list[str] = field(default_factory=list)
    """In the place of its own."""
    drips: str = ""
    """Where the outputs of prompts with DRIP lie."""
    on_poll: "Callable[[Api, web.Request], web.StreamResponse] | None" = None
    """Answers status and result in the place of the usual answers."""
    on_stranger: Callable[[], object] = lambda: None
    """Called before a wrong token is refused."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    downloads_with_token: int = 0
    base: str = ""
    catalogue: dict[str, Any] = field(default_factory=dict)
    catalogue_status: int = 404
    """Of what it does not have."""

    def prompts(self) -> list[str]:
        return [entry.body["prompt"] for entry in self.journal]

    def find(self, request_id: str) -> Accepted | None:
        return next((entry for entry in self.journal if entry.id == request_id), None)

    def accept(self, body: dict[str, Any]) -> dict[str, str]:
        entry = Accepted(f"r-{len(self.journal) + 1}", body, time.time())
        self.journal.append(entry)
        urls = {name: f"https://elsewhere.invalid/{entry.id}/{name}" for name in ("status", "result", "cancel")}
        return {"request_id": entry.id, **{f"{name}_url": url for name, url in urls.items()}}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=100 * 2**20)
        app.router.add_post("/v1/models/{model:.+}", self._submit)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_get("/prod/v2/balance", self._balance)
        app.router.add_get("/v1/requests/{id}/status", self._status)
        app.router.add_get("/v1/requests/{id}/result", self._result)
        app.router.add_post("/v1/requests/{id}/cancel", self._cancel)
        app.router.add_get("/files/{id}/{name}", self._file)
        app.router.add_get("/redirect", self._redirect)
        app.router.add_get("/sign-in", self._sign_in)
        return app

    def _refused(self, request: web.Request) -> web.Response | None:
        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        self.strangers.append(request.path)
        self.on_stranger()
        return web.json_response({"error_code": 400004, "error_message": "bad token"}, status=401)

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        special = self.specials.pop(0) if self.specials else None
        if special and (answer := special(self, request, body)):
            return answer
        if not self.paid:
            return web.json_response({"error_code": 400002, "error_message": "no balance"}, status=402)
        if "INVALID" in body.get("prompt", ""):
            return web.json_response({"error_message": "prompt is not to our liking"}, status=422)
        links = self.accept(body)
        while self.stalls:
            await asyncio.sleep(0.05)
        return web.json_response(links)

    async def _model(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        entry = self.catalogue.get(request.match_info["model"])
        return web.json_response(entry or {"error_code": 400001}, status=200 if entry else self.catalogue_status)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return self._refused(request) or web.json_response({"models": list(self.catalogue.values())})

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        return self._refused(request) or web.json_response({"balance_usd": self.balance, "currency": "USD"})

    def _state(self, entry: Accepted) -> str:
        if entry.cancelled or "CANCELLED" in entry.body["prompt"]:
            return "cancelled"
        if self.queued or "QUEUED" in entry.body["prompt"]:
            return "in_queue"
        return "completed" if time.time() - entry.at > self.delay else "in_progress"

    async def _status(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        if self.on_poll:
            return self.on_poll(self, request)
        entry = self.journal[0] if self.mixes_up else self.find(request.match_info["id"])
        if entry is None:
            return web.json_response({"error_code": 404001}, status=404)
        return web.json_response({"request_id": entry.id, "status": self._state(entry), "queue_position": 3})

    async def _result(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        if self.on_poll:
            return self.on_poll(self, request)
        entry = self.journal[0] if self.mixes_up else self.find(request.match_info["id"])
        if entry is None:
            return web.json_response({"error_code": 404001, "error_message": "gone"}, status=404)
        state = self._state(entry)
        body: dict[str, Any] = {"request_id": entry.id, "status": state}
        if state != "completed":
            return web.json_response(body)
        prompt = entry.body["prompt"]
        if "FAIL" in prompt:
            return web.json_response({**body, "status": "failed", "error": {"message": "the model fell over"}})
        if "POLICY" in prompt:
            return web.json_response({**body, "status": "failed", "error": "content policy violation"})
        count = int(entry.body.get("num_images", entry.body.get("number_of_images", 1)))
        urls: Any = self.output_urls or [f"{self.base}/files/{entry.id}/{index}" for index in range(1, count + 1)]
        if "DRIP" in prompt:
            urls = [f"{self.drips}/{entry.id}"]
        if entry.body.get("sync_mode"):
            import base64

            content = picture(f"{entry.id} 1") + b"\0" * self.bulk
            urls = ["data:image/png;base64," + base64.b64encode(content).decode()]
        late = time.time() - entry.at < self.delay + self.outputs_after
        output = {} if self.empty or late else {"image": urls[0]} if count == 1 else {"images": urls}
        cost = {"cost": 0.12 * count} if self.bills and request.query.get("include_cost") == "true" else {}
        return web.json_response({**body, "status": "succeeded", "output": output, "finished_at": time.time(), **cost})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        while self.hangs:
            await asyncio.sleep(0.05)
        if self.busy_cancels:
            self.busy_cancels -= 1
            return web.json_response({"error_code": 429001, "error_message": "too many"}, status=429)
        entry = self.find(request.match_info["id"])
        assert entry
        entry.cancelled = self._state(entry) == "in_queue"
        outcome = "cancelled" if entry.cancelled else "not_cancellable"
        return web.json_response({"request_id": entry.id, "status": self._state(entry), "outcome": outcome})

    async def _sign_in(self, _request: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>Sign in</title>", content_type="text/html")

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        to = request.query["to"]
        return web.Response(status=302, headers={"Location": str(request.url) if to == "itself" else to})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        if self.files_down:
            return web.Response(status=503)
        if self.find(request.match_info["id"]) is None:
            return web.Response(status=404)
        self.downloads_with_token += "Authorization" in request.headers
        await asyncio.sleep(self.slow_files.get(f"{request.match_info['id']}/{request.match_info['name']}", 0))
        if status := self.file_statuses.get(f"{request.match_info['id']}/{request.match_info['name']}"):
            return web.Response(status=status)
        if f"{request.match_info['id']}/{request.match_info['name']}" in self.bad_files:
            return web.Response(body=b"this is not a picture")
        picture_of = picture(f"{request.match_info['id']} {request.match_info['name']}")
        if self.silent_files:
            self.silent_files -= 1
            half = web.StreamResponse(headers={"Content-Length": str(len(picture_of))})
            await half.prepare(request)
            await half.write(picture_of[: len(picture_of) // 2])
            await asyncio.sleep(3600)
        return web.Response(body=picture_of + b"\0" * self.bulk)


class HasApp(Protocol):
    """A server's routes, and where it is reached."""

    base: str

    def app(self) -> web.Application: ...


A = TypeVar("A", bound=HasApp)


class Served(Generic[A]):
    """Serves an API from a thread, until the block is left."""

    def __init__(self, api: A) -> None:
        self.api = api
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> A:
        self._thread.start()
        assert self._ready.wait(10)
        return self.api

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self.api.app(), access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.api.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(asyncio.sleep(0.01))  # a closed transport closes its socket a turn later


def raw(status: int, text: str, kind: str = "text/html", headers: dict[str, str] | None = None) -> Special:
    """Answer with this, accepting nothing."""
    return lambda _api, _request, _body: web.Response(status=status, text=text, content_type=kind, headers=headers)


def own(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Special:
    """Answer with an error in the API's own form."""
    return raw(status, json.dumps({"error_code": code, "error_message": message}), "application/json", headers)


def accepts_and_hangs_up(api: Api, request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    api.accept(body)
    assert request.transport
    request.transport.abort()
    return web.Response()


def accepts_and_cuts(api: Api, request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    """Send the request id, and break off within the JSON."""
    found = json.dumps(api.accept(body)).encode()
    assert request.transport
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(found)
    request.transport.write(head + found[: found.index(b"status_url")])
    request.transport.close()
    return web.Response()


def accepts_and_answers(status: int, change: Callable[[bytes], bytes], **headers: str) -> Special:
    """Accept, and answer with what this makes of the JSON that the answer should have been; then close, in good order."""

    def answer(api: Api, request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        content = change(json.dumps(api.accept(body)).encode())
        assert request.transport
        lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        request.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        request.transport.close()
        return web.Response()

    return answer


def accepts_and_speaks_no_http(api: Api, request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    api.accept(body)
    assert request.transport
    request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    request.transport.close()
    return web.Response()
