"""The remote queue as a pure world: calls and the time go in, replies come out, and a journal of what was accepted.

Nothing here sleeps, opens or draws from chance of its own: the HTTP server and the tests' in-memory wire are
shells around it. Times are seconds since 1970, money is USD.
"""

import hashlib
import heapq
import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

from jsonschema import Draft202012Validator

_COUNT_FIELDS: Final = ("num_images", "number_of_images")
_POLICY_WORD: Final = "forbidden-by-policy"
"""A prompt with this word is refused for its content, so that a rehearsal can show what that looks like."""


@dataclass(frozen=True, slots=True)
class Mishaps:
    """How often things go wrong, as shares from 0 to 1."""

    fail: float = 0.0
    """The generation fails."""
    busy: float = 0.0
    """A submission is answered 429."""
    lose: float = 0.0
    """A submission is accepted, and its answer never arrives."""
    reset: float = 0.0
    """A submission's connection breaks before anything was accepted."""
    stumble: float = 0.0
    """A poll is answered 502."""
    tear: float = 0.0
    """A download breaks off half-way."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the world is: its speed, size, prices and mishaps."""

    seed: int = 0
    slots: int = 8
    latency: float = 2.0
    """Median of a job's service time; it is log-normal."""
    sigma: float = 0.5
    max_outstanding: int = 0
    """Submissions above this many are answered 429; 0: no limit."""
    balance: float = math.inf
    token: str = ""
    """The only token that is taken; empty: any."""
    mishaps: Mishaps = field(default_factory=Mishaps)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status and JSON body. `arrives` is false where the connection breaks instead."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    arrives: bool = True


@dataclass(slots=True)
class Request:
    """One accepted job."""

    id: str
    model: str
    inputs: Mapping[str, Any]
    accepted_at: float
    service: float
    started_at: float | None = None
    ended_at: float | None = None
    cancelled: bool = False
    error: str | None = None
    price: float = 0.0
    place: int = 0

    @property
    def count(self) -> int:
        """How many files it makes."""
        return int(next((self.inputs[name] for name in _COUNT_FIELDS if name in self.inputs), 1))


class World:
    """The queue, its slots, its journal. `models`: catalogue entries by id."""

    def __init__(self, conditions: Conditions, models: Mapping[str, Mapping[str, Any]]) -> None:
        self.conditions = conditions
        self.models = models
        self.journal: list[Mapping[str, Any]] = []
        """Accepted submissions and cancellations, in order: enough to make the world again."""
        self.calls = 0
        self._validators = {key: Draft202012Validator(model["input_schema"]) for key, model in models.items()}
        self._requests: dict[str, Request] = {}
        self._queue: OrderedDict[str, Request] = OrderedDict()
        self._running: list[tuple[float, str]] = []
        self._entered = 0
        self._left_queue = 0
        self.spent = 0.0

    # What the API offers.

    def submit(self, model: str, body: object, token: str, now: float) -> Reply:
        """`POST /v1/models/{model_id}`."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_submission(model, body, token):
            return refusal
        mishap = self._draw("submit", self.calls)
        mishaps = self.conditions.mishaps
        if mishap < mishaps.busy:
            return _error(429, 429001, "too many requests", {"Retry-After": "1"})
        if mishap < mishaps.busy + mishaps.reset:
            return Reply(0, {}, arrives=False)
        accepted = self._accept(model, body, now)  # type: ignore[arg-type]
        lost = mishap < mishaps.busy + mishaps.reset + mishaps.lose
        return Reply(200, self._links(accepted.id), arrives=not lost)

    def status(self, request_id: str, token: str, now: float) -> Reply:
        """`GET /v1/requests/{request_id}/status`."""
        self._advance(now)
        self.calls += 1
        return self._refuse_reading(request_id, token) or Reply(200, self._state(self._requests[request_id]))

    def result(self, request_id: str, token: str, now: float, *, cost: bool, files: str) -> Reply:
        """`GET /v1/requests/{request_id}/result`; `files` is the base of output URLs."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_reading(request_id, token):
            return refusal
        request = self._requests[request_id]
        body = dict(self._state(request))
        if request.ended_at is None or request.cancelled:
            return Reply(200, body)
        body |= {"created_at": _stamp(request.accepted_at), "finished_at": _stamp(request.ended_at)}
        if request.error:
            body |= {"status": "failed", "error": {"message": request.error}}
        else:
            body |= {"status": "succeeded", "output": self._output(request, files)}
        if cost:
            body["cost"] = 0.0 if request.error else request.price
        return Reply(200, body)

    def cancel(self, request_id: str, token: str, now: float) -> Reply:
        """`POST /v1/requests/{request_id}/cancel`."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_reading(request_id, token):
            return refusal
        request = self._requests[request_id]
        if request_id not in self._queue:
            return Reply(200, {**self._state(request), "outcome": "not_cancellable"})
        del self._queue[request_id]
        request.cancelled, request.ended_at = True, now
        self.spent -= request.price
        self.journal.append({"cancelled": request_id, "at": now})
        return Reply(200, {**self._state(request), "outcome": "cancelled"})

    def catalogue(self, model: str | None) -> Reply:
        """`GET /v1/models` and `GET /v1/models/{model_id}`."""
        if model is None:
            return Reply(200, {"models": list(self.models.values()), "total": len(self.models)})
        if model not in self.models:
            return _error(404, 400001, f"no such model: {model}")
        return Reply(200, self.models[model])

    def balance(self, token: str) -> Reply:
        """`GET /prod/v2/balance`."""
        if not self._known(token):
            return _error(401, 400004, "invalid token")
        left = self.conditions.balance - self.spent
        return Reply(200, {"balance_usd": left if math.isfinite(left) else 1_000_000.0, "currency": "USD"})

    # What its shells need to know.

    def request(self, request_id: str) -> Request | None:
        """Give an accepted job."""
        return self._requests.get(request_id)

    def tears(self, request_id: str, index: int, tries: int) -> bool:
        """Say whether this download breaks off."""
        return self._draw(f"tear {request_id} {index}", tries) < self.conditions.mishaps.tear

    def fail(self, request_id: str, why: str) -> None:
        """Let a job fail, for what only a shell can find out: an input image that cannot be fetched."""
        self._requests[request_id].error = why

    def replay(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Make the world again from its journal."""
        for entry in entries:
            if "cancelled" in entry:
                self.cancel(str(entry["cancelled"]), self.conditions.token or "replay", float(entry["at"]))
            else:
                self._advance(float(entry["at"]))
                self._accept(str(entry["model"]), entry["inputs"], float(entry["at"]))

    # How it works.

    def _known(self, token: str) -> bool:
        return bool(token) and self.conditions.token in {"", token}

    def _refuse_submission(self, model: str, body: object, token: str) -> Reply | None:
        if not self._known(token):
            return _error(401, 400004, "invalid token")
        if model not in self.models:
            return _error(404, 400001, f"no such model: {model}")
        problems = [error.message for error in self._validators[model].iter_errors(body)]
        if problems:
            return Reply(422, {"error_code": 422001, "error_message": "invalid input", "detail": problems[:5]})
        if _POLICY_WORD in str(body.get("prompt", "") if isinstance(body, dict) else ""):
            return _error(400, 400010, "the prompt violates the content policy")
        if self.spent + self._price(model, body) > self.conditions.balance:
            return _error(402, 400002, "insufficient balance")
        outstanding = len(self._queue) + len(self._running)
        if self.conditions.max_outstanding and outstanding >= self.conditions.max_outstanding:
            return _error(429, 429001, "too many outstanding requests")
        return None

    def _refuse_reading(self, request_id: str, token: str) -> Reply | None:
        if not self._known(token):
            return _error(401, 400004, "invalid token")
        if request_id not in self._requests:
            return _error(404, 404001, "request missing or expired")
        if self._draw("read", self.calls) < self.conditions.mishaps.stumble:
            return Reply(502, {})
        return None

    def _accept(self, model: str, inputs: Mapping[str, Any], now: float) -> Request:
        number = len(self._requests) + 1
        request_id = hashlib.sha256(f"{self.conditions.seed} request {number}".encode()).hexdigest()[:32]
        self._entered += 1
        request = Request(
            id=request_id,
            model=model,
            inputs=inputs,
            accepted_at=now,
            service=self._service(number),
            price=self._price(model, inputs),
            place=self._entered,
        )
        if self._draw("fail", number) < self.conditions.mishaps.fail:
            request.error = "the generation failed: internal model error"
        self._requests[request_id] = self._queue[request_id] = request
        self.spent += request.price
        self.journal.append({"id": request_id, "at": now, "model": model, "inputs": inputs})
        self._advance(now)
        return request

    def _service(self, number: int) -> float:
        chance = min(max(self._draw("service", number), 1e-9), 1 - 1e-9)
        return self.conditions.latency * math.exp(self.conditions.sigma * NormalDist().inv_cdf(chance))

    def _price(self, model: str, inputs: object) -> float:
        entry = self.models[model]
        given = inputs if isinstance(inputs, dict) else {}
        own = entry.get("prices", {}).get("usd_per_image", {})
        default = entry["input_schema"]["properties"].get("resolution", {}).get("default")
        each = own.get(given.get("resolution", default), entry.get("base_price_usd", 0.0))
        return round(float(each) * int(next((given[name] for name in _COUNT_FIELDS if name in given), 1)), 6)

    def _advance(self, now: float) -> None:
        """Let time pass: jobs end, and those that waited take their slots, in the order of acceptance."""
        while True:
            while self._queue and len(self._running) < self.conditions.slots:
                request_id, request = self._queue.popitem(last=False)
                self._left_queue = request.place
                request.started_at = max(request.accepted_at, request.started_at or 0.0)
                heapq.heappush(self._running, (request.started_at + request.service, request_id))
            if not self._running or self._running[0][0] > now:
                return
            ended_at, request_id = heapq.heappop(self._running)
            self._requests[request_id].ended_at = ended_at
            if self._queue:
                following = next(iter(self._queue.values()))
                following.started_at = max(ended_at, following.accepted_at)

    def _state(self, request: Request) -> dict[str, Any]:
        if request.cancelled:
            return {"request_id": request.id, "status": "cancelled"}
        if request.ended_at is not None:
            return {"request_id": request.id, "status": "completed"}
        if request.id in self._queue:
            place = request.place - self._left_queue
            return {"request_id": request.id, "status": "in_queue", "queue_position": max(1, place)}
        return {"request_id": request.id, "status": "in_progress"}

    def _output(self, request: Request, files: str) -> dict[str, Any]:
        video = "video" in str(self.models[request.model].get("categories"))
        suffix = "avi" if video else str(request.inputs.get("output_format", "png"))
        urls = [f"{files}/files/{request.id}/{index}.{suffix}" for index in range(1, request.count + 1)]
        if video:
            return {"video": urls[0]}
        return {"image": urls[0]} if len(urls) == 1 else {"images": urls}

    def _links(self, request_id: str) -> dict[str, str]:
        path = f"/v1/requests/{request_id}"
        return {
            "request_id": request_id,
            "status_url": f"{path}/status",
            "result_url": f"{path}/result",
            "cancel_url": f"{path}/cancel",
        }

    def _draw(self, what: str, number: int) -> float:
        """Draw a number from 0 to 1 that only the seed, the thing and its number decide."""
        digest = hashlib.sha256(json.dumps([self.conditions.seed, what, number]).encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56


def _error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"error_code": code, "error_message": message}, headers or {})


def _stamp(at: float) -> float:
    return round(at, 3)
