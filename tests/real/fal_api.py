"""A server written from fal's documents alone, over real HTTP: its queue and its platform API, each at a base of its own."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.nights.memory import picture

KEY = "key-of-the-test:secret-of-the-test"
Special = Callable[["FalApi", web.Request, dict[str, Any]], "web.StreamResponse | None"]


@dataclass
class Sent:
    """A request that was accepted."""

    id: str
    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    cancelled: bool = False


@dataclass
class FalApi:
    """Its state; `specials` are taken one a submission, from the front, before the usual answer."""

    delay: float = 0.1
    unit_price: float | None = 0.15
    units: str | None = "1"
    specials: list[Special | None] = field(default_factory=list)
    results: list[Callable[[Sent], web.Response] | None] = field(default_factory=list)
    """Answers to results, one each, from the front, before the usual one."""
    submissions: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """Everything posted: path, body, headers."""
    journal: list[Sent] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path with query of all else."""
    strangers: list[str] = field(default_factory=list)
    """Paths that were asked for without the key."""
    keyed_files: int = 0
    listed: bool = True
    others: list[dict[str, Any]] = field(default_factory=list)
    """Items of the list that are another run's, with their payloads."""
    others_first: bool = False
    unreadable: set[str] = field(default_factory=set)
    """Requests whose payloads, and cursors whose pages, are answered 500."""
    page_size: int = 100
    cursor_is_a_number: bool = False
    late: dict[int, float] = field(default_factory=dict)
    """Seconds after which a request is listed, by its place in the journal from 0."""
    hanging: bool = False
    """Payloads are not answered."""
    forbidden: bool = False
    """The key may not read the list."""
    queued: bool = False
    follow: str = ""
    """In the place of the host of the URLs to follow."""
    base: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return {
            "FAL_KEY": KEY,
            "FAL_QUEUE_BASE_URL": self.base + "/queue",
            "FAL_API_BASE_URL": self.base + "/platform/v1",
        }

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/platform/v1/models/requests/by-endpoint", self._past)
        app.router.add_get("/platform/v1/models/pricing", self._prices)
        app.router.add_get("/platform/v1/account/billing", self._billing)
        app.router.add_get("/files/{id}/{name}", self._file)
        app.router.add_route("*", "/queue/{app:.+}/requests/{id}/odd/{what}", self._follow)
        app.router.add_get("/queue/{app:.+}/requests/{id}/status", self._status)
        app.router.add_get("/queue/{app:.+}/requests/{id}", self._result)
        app.router.add_put("/queue/{app:.+}/requests/{id}/cancel", self._cancel)
        app.router.add_post("/queue/{model:.+}", self._submit)
        return app

    def accept(self, model: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        sent = Sent(f"{len(self.journal) + 1:08d}-0000-4000-8000-000000000000", model, body, headers, time.time())
        self.journal.append(sent)
        app = "/".join(model.split("/")[:2])
        base = self.follow or f"{self.base}/queue/{app}/requests/{sent.id}/odd"
        urls = {"response_url": f"{base}/response", "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
        return {"status": "IN_QUEUE", "request_id": sent.id, **urls, "queue_position": 0}

    def _refused(self, request: web.Request) -> web.Response | None:
        self.asked.append((request.method, request.path_qs))
        if request.headers.get("Authorization") == f"Key {KEY}":
            return None
        self.strangers.append(request.path)
        return web.json_response({"detail": "No user found for Key ID and Secret"}, status=401)

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.submissions.append((request.match_info["model"], body, headers))
        special = self.specials.pop(0) if self.specials else None
        if special and (answer := special(self, request, body)):
            return answer
        return web.json_response(self.accept(request.match_info["model"], body, headers))

    def _find(self, request: web.Request) -> Sent | None:
        return next((one for one in self.journal if one.id == request.match_info["id"]), None)

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """The URLs that a submission is answered with, which are none of the documents'."""
        what = request.match_info["what"]
        if (request.method == "PUT") != (what == "cancel"):
            return web.json_response({"detail": "Method Not Allowed"}, status=405)
        return await {"status": self._status, "response": self._result, "cancel": self._cancel}[what](request)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        sent = self._find(request)
        if sent is None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        body: dict[str, Any] = {"request_id": sent.id}
        if self._ended(sent):
            return web.json_response({**body, "status": "COMPLETED", "metrics": {"inference_time": 0.1}})
        if self.queued:
            return web.json_response({**body, "status": "IN_QUEUE", "queue_position": 3}, status=202)
        return web.json_response({**body, "status": "IN_PROGRESS", "logs": []}, status=202)

    def _ended(self, sent: Sent) -> bool:
        return sent.cancelled or (not self.queued and time.time() - sent.at > self.delay)

    async def _result(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        sent = self._find(request)
        if sent is None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        if not self._ended(sent):
            return web.json_response({"detail": "Request is still in progress"}, status=400)
        if sent.cancelled:
            return web.json_response({"detail": "cancelled", "error_type": "client_cancelled"}, status=499)
        special = self.results.pop(0) if self.results else None
        if special:
            return special(sent)
        count = int(sent.body.get("num_images", 1))
        images = [
            {"url": f"{self.base}/files/{sent.id}/{index}", "content_type": "image/png"}
            for index in range(1, count + 1)
        ]
        headers = {} if self.units is None else {"x-fal-billable-units": self.units}
        return web.json_response({"images": images, "description": "a text"}, headers=headers)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        sent = self._find(request)
        assert sent
        if self._ended(sent):
            return web.json_response({"status": "ALREADY_COMPLETED"}, status=400)
        sent.cancelled = self.queued
        return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.keyed_files += "Authorization" in request.headers
        return web.Response(body=picture(f"{request.match_info['id']} {request.match_info['name']}"))

    async def _past(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        if self.forbidden:
            return web.json_response({"detail": "this key may not do that"}, status=403)
        wanted, cursor = request.query.get("request_id"), request.query.get("cursor", "1")
        while self.hanging and wanted:
            await asyncio.sleep(0.05)
        if {wanted, cursor} & self.unreadable:
            return web.Response(status=500)
        ours = [
            {
                "request_id": one.id,
                "endpoint_id": one.model,
                "sent_at": stamp(one.at),
                "started_at": stamp(one.at),
                "ended_at": stamp(one.at + self.delay),
                "status_code": 200,
                "json_input": one.body,
            }
            for number, one in enumerate(self.journal)
            if time.time() - one.at >= self.late.get(number, 0.0)
        ]
        ours = ours if self.listed else []
        items = [*self.others, *ours] if self.others_first else [*ours, *self.others]
        items = [one for one in items if wanted in {None, one["request_id"]}]
        items = [
            one for one in items if one.get("endpoint_id", request.query["endpoint_id"]) == request.query["endpoint_id"]
        ]
        if request.query.get("expand") != "payloads":
            items = [{key: value for key, value in one.items() if key != "json_input"} for one in items]
        first, size = (int(cursor) - 1) * self.page_size, self.page_size
        more = len(items) > first + size
        following: Any = int(cursor) + 1
        following = following if self.cursor_is_a_number else str(following)
        page = {"items": items[first : first + size], "next_cursor": following if more else None, "has_more": more}
        return web.json_response(page)

    async def _prices(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        name = request.query["endpoint_id"]
        one = {"endpoint_id": name, "unit_price": self.unit_price, "unit": "images", "currency": "USD"}
        return web.json_response({"prices": [] if self.unit_price is None else [one]})

    async def _billing(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        return web.json_response({"detail": "this key may not do that"}, status=403)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def says(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Special:
    """Answer a submission with this, accepting nothing."""
    return lambda _api, _request, _body: web.json_response(body, status=status, headers=headers)


def lost(api: FalApi, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Accept, and break the connection before the answer."""
    api.accept(request.match_info["model"], body, {})
    assert request.transport
    request.transport.abort()
    return web.Response()


def ends(status: int, body: Any, headers: dict[str, str] | None = None) -> Callable[[Sent], web.Response]:
    """Answer a result with this."""
    return lambda _sent: web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json", headers=headers
    )
