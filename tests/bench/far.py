"""A far side that is quick: a queue with slots and log-normal service times, over HTTP, in a process of its own."""

import asyncio
import heapq
import io
import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from PIL import Image


def picture(size: int) -> bytes:
    """Make a PNG of about this many bytes."""
    side = max(8, int(math.sqrt(size / 3)))
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3)).save(out, "PNG")
    return out.getvalue()


@dataclass
class Far:
    """Jobs are taken in the order of their acceptance by the slot that is free first."""

    slots: int
    median: float
    sigma: float
    content: bytes
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Request id -> when its work begins and ends."""
    services: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    free_at: list[float] = field(default_factory=list)
    requests: int = 0
    last_file: float = 0.0

    def reset(self) -> None:
        """Begin a new measurement."""
        self.services, self.accepted, self.requests = [], [], 0
        self.free_at = [0.0] * self.slots

    def accept(self) -> str:
        """Take a job in."""
        now, service = time.monotonic(), self.median * self.chance.lognormvariate(0, self.sigma)
        begins = max(now, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, begins + service)
        request_id = f"r-{len(self.ends)}"
        self.ends[request_id] = (begins, begins + service)
        self.services.append(service)
        self.accepted.append(now)
        return request_id

    def report(self) -> dict[str, float]:
        """Give the makespan, the ideal one for the same service times in order, and the requests.

        `busy` is the share of slots at work until the last job took its own.
        """
        free = [0.0] * self.slots
        for service in self.services:
            heapq.heappush(free, heapq.heappop(free) + service)
        ideal = max(free)
        makespan = self.last_file - self.accepted[0]
        ran = [*self.ends.values()][-len(self.services) :]
        full = max(begins for begins, _ in ran)
        worked = sum(max(0.0, min(full, ends) - begins) for begins, ends in ran)
        return {
            "jobs": len(self.services),
            "makespan": makespan,
            "ideal": ideal,
            "busy": worked / (self.slots * max(1e-9, full - self.accepted[0])),
            "requests": self.requests,
            "first": self.accepted[0],
        }

    def app(self) -> web.Application:
        """Give its routes: RunComfy's, and those of a `fal` queue."""
        app = web.Application(client_max_size=100 * 2**20)
        app.router.add_post("/v1/models/{model:.+}", self._submit)
        app.router.add_get("/v1/requests/{id}/{what}", self._look)
        app.router.add_get("/files/{id}.png", self._file)
        app.router.add_get("/report", self._report)
        app.router.add_get("/accepted", self._accepted)
        app.router.add_post("/reset", self._reset)
        app.router.add_post("/{owner}/{app}", self._submit_fal)
        app.router.add_get("/{owner}/{app}/requests/{id}/status", self._look_fal)
        app.router.add_get("/{owner}/{app}/requests/{id}", self._result_fal)
        return app

    async def _submit(self, request: web.Request) -> web.Response:
        self.requests += 1
        await request.read()
        return web.json_response({"request_id": self.accept()})

    async def _look(self, request: web.Request) -> web.Response:
        self.requests += 1
        request_id, now = request.match_info["id"], time.monotonic()
        begins, ends = self.ends[request_id]
        if now < ends:
            state = "in_queue" if now < begins else "in_progress"
            return web.json_response({"request_id": request_id, "status": state})
        if request.match_info["what"] == "status":
            return web.json_response({"request_id": request_id, "status": "completed"})
        url = f"http://{request.host}/files/{request_id}.png"
        return web.json_response({"request_id": request_id, "status": "succeeded", "output": {"images": [url]}})

    async def _submit_fal(self, request: web.Request) -> web.Response:
        self.requests += 1
        await request.read()
        request_id = self.accept()
        url = f"http://{request.host}{request.path}/requests/{request_id}"
        urls = {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}
        return web.json_response({"request_id": request_id, **urls})

    async def _look_fal(self, request: web.Request) -> web.Response:
        self.requests += 1
        begins, ends = self.ends[request.match_info["id"]]
        now = time.monotonic()
        state = "IN_QUEUE" if now < begins else "IN_PROGRESS" if now < ends else "COMPLETED"
        return web.json_response({"status": state, "queue_position": 0, "logs": None})

    async def _result_fal(self, request: web.Request) -> web.Response:
        self.requests += 1
        return web.json_response({"images": [{"url": f"http://{request.host}/files/{request.match_info['id']}.png"}]})

    async def _file(self, _request: web.Request) -> web.Response:
        self.last_file = time.monotonic()
        return web.Response(body=self.content, content_type="image/png")

    async def _report(self, _request: web.Request) -> web.Response:
        return web.json_response(self.report())

    async def _accepted(self, _request: web.Request) -> web.Response:
        return web.json_response(len(self.accepted))

    async def _reset(self, _request: web.Request) -> web.Response:
        self.reset()
        return web.Response()


async def serve(facts: dict[str, Any]) -> None:
    """Serve until standard input closes; print the port first."""
    far = Far(facts["slots"], facts["median"], facts["sigma"], picture(facts["bytes"]))
    far.reset()
    runner = web.AppRunner(far.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve(json.loads(sys.argv[1])))
    except ImportError:
        asyncio.run(serve(json.loads(sys.argv[1])))
