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
from urllib.parse import quote

from jsonschema import Draft202012Validator

from batcher.sandbox.faults import Manner, Strikes, checked, struck
from batcher.sandbox.replies import MAYBE_ACCEPTED, PAGE, Reply, error, server_trouble, spoiled, turned_away

_COUNT_FIELDS: Final = ("num_images", "number_of_images")
_ERRORS: Final = {
    "fail": "the generation failed: internal model error",
    "refuse": "the output was blocked by the content policy",
}
_HALF: Final = 0.5
_LATE_TRIES: Final = 2
_FORGOTTEN_FOR: Final = 30.0
_LATE_BY: Final = 4.0
"""Seconds after its end at which a request's outputs are there, where they are late."""
_SECOND_LOOK: Final = 2
_CLOCK_OFF: Final = 7200.0
_POLICY_WORD: Final = "forbidden-by-policy"
"""A prompt with this word is refused for its content, so that a rehearsal can show what that looks like."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the world is: its speed, size, prices and mishaps."""

    seed: int = 0
    slots: int = 8
    latency: float = 2.0
    """Median of a job's service time; it is log-normal."""
    latencies: Mapping[str, float] = field(default_factory=dict)
    """The same of models that have another."""
    sigma: float = 0.5
    max_outstanding: int = 0
    """Submissions above this many are answered 429; 0: no limit."""
    balance: float = math.inf
    token: str = ""
    """The only token that is taken; empty: any."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """How often things go wrong: the names of `faults.py`, each with its share from 0 to 1."""
    outages: tuple[tuple[float, float], ...] = ()
    """Times at which nothing listens: seconds since 1970, from and until."""
    submissions_per_second: float = 0.0
    """Above this rate submissions are answered 429, with up to a second's worth at once; 0: no limit."""


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
    fault: str | None = None
    """What goes wrong with it, a name of `faults.py`."""
    price: float = 0.0
    place: int = 0
    looks: int = 0
    """How often its state was asked for."""

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
        self.faults = checked(conditions.faults)
        """May be changed while it lives."""
        self.strikes: list[str] = []
        """The faults that have struck, in order."""
        self._last_id = ""
        self._tokens = max(1.0, conditions.submissions_per_second)
        self._filled_at = 0.0

    # What the API offers.

    def submit(self, model: str, body: object, token: str, now: float) -> Reply:
        """`POST /v1/models/{model_id}`."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_submission(model, body, token):
            return refusal
        if wait := self._too_fast(now):
            return error(429, 429001, "too many submissions", {"Retry-After": str(math.ceil(wait))})
        fault = self._strike(struck(self.faults, Strikes.SUBMISSION, self._draw("submit", self.calls)))
        return self._submitted(fault, model, body, now)  # type: ignore[arg-type]

    def _submitted(self, fault: str | None, model: str, body: Mapping[str, Any], now: float) -> Reply:
        """Accept a submission, or not, and answer as the fault has it."""
        if refusal := turned_away(fault, now):
            return refusal
        if fault in MAYBE_ACCEPTED and self._draw("accept anyway", self.calls) < _HALF:
            return server_trouble(str(fault))
        known = self._last_id
        accepted = self._accept(model, body, now, strange=fault == "strange_id")
        links = self._links(accepted.id)
        return spoiled(fault, links, self._links(known) if known else links)

    def status(self, request_id: str, token: str, now: float) -> Reply:
        """`GET /v1/requests/{request_id}/status`."""
        self._advance(now)
        self.calls += 1
        return self._refuse_reading(request_id, token, now) or Reply(200, self._state(self._requests[request_id]))

    def result(self, request_id: str, token: str, now: float, *, cost: bool, files: str) -> Reply:
        """`GET /v1/requests/{request_id}/result`; `files` is the base of output URLs."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_reading(request_id, token, now):
            return refusal
        request = self._requests[request_id]
        body = dict(self._state(request))
        if body["status"] != "completed":
            return Reply(200, body)
        body |= _stamps(request, now)
        if request.error:
            body |= {"status": "failed", "error": {"message": request.error}}
        elif request.fault == "no_output" or self._is_late(request, now):
            body |= {"status": "succeeded", "output": {}}
        else:
            body |= {"status": "succeeded", "output": self._output(request, files)}
        if cost:
            body["cost"] = 0.0 if request.error else request.price
        return Reply(200, body)

    @staticmethod
    def _is_late(request: Request, now: float) -> bool:
        """Return whether a request's outputs are still to come, though it is completed."""
        return request.fault == "late_output" and now - (request.ended_at or now) < _LATE_BY

    def cancel(self, request_id: str, token: str, now: float) -> Reply:
        """`POST /v1/requests/{request_id}/cancel`."""
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_reading(request_id, token, now):
            return refusal
        request = self._requests[request_id]
        if request_id not in self._queue:
            return Reply(200, {**self._state(request), "outcome": "not_cancellable"})
        del self._queue[request_id]
        request.cancelled, request.ended_at = True, now
        self.spent -= request.price
        self.journal.append({"cancelled": request_id, "at": now})
        return Reply(200, {**self._state(request), "outcome": "cancelled"})

    def catalogue(self, model: str | None, token: str) -> Reply:
        """`GET /v1/models` and `GET /v1/models/{model_id}`."""
        if not self._known(token):
            return error(401, 400004, "invalid token")
        if model is None:
            return Reply(200, {"models": list(self.models.values()), "total": len(self.models)})
        if model not in self.models:
            return error(404, 400001, f"no such model: {model}")
        return Reply(200, self.models[model])

    def balance(self, token: str) -> Reply:
        """`GET /prod/v2/balance`."""
        if not self._known(token):
            return error(401, 400004, "invalid token")
        left = self.conditions.balance - self.spent
        return Reply(200, {"balance_usd": left if math.isfinite(left) else 1_000_000.0, "currency": "USD"})

    # What its shells need to know.

    def request(self, request_id: str) -> Request | None:
        """Give an accepted job."""
        return self._requests.get(request_id)

    def file_fault(self, request_id: str, index: int, tries: int) -> str | None:
        """Say what goes wrong with this download: the same at each try, but for what passes."""
        steady = self._strike(struck(self.faults, Strikes.FILE, self._draw(f"file {request_id}", index)))
        if steady == "tear":
            return "tear" if self._draw(f"tear {request_id} {index}", tries) < self.faults["tear"] else None
        return None if steady == "file_late" and tries > _LATE_TRIES else steady

    def down(self, now: float) -> bool:
        """Say whether nothing listens."""
        return any(begins <= now < ends for begins, ends in self.conditions.outages)

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
                self._accept(str(entry["model"]), entry["inputs"], float(entry["at"]), known=str(entry["id"]))

    # How it works.

    def _known(self, token: str) -> bool:
        return bool(token) and self.conditions.token in {"", token}

    def _refuse_submission(self, model: str, body: object, token: str) -> Reply | None:
        if not self._known(token):
            return error(401, 400004, "invalid token")
        if model not in self.models:
            return error(404, 400001, f"no such model: {model}")
        problems = [error.message for error in self._validators[model].iter_errors(body)]
        if problems:
            return Reply(422, {"error_code": 422001, "error_message": "invalid input", "detail": problems[:5]})
        if _POLICY_WORD in str(body.get("prompt", "") if isinstance(body, dict) else ""):
            return error(400, 400010, "the prompt violates the content policy")
        if self.spent + self._price(model, body) > self.conditions.balance:
            return error(402, 400002, "insufficient balance")
        outstanding = len(self._queue) + len(self._running)
        if self.conditions.max_outstanding and outstanding >= self.conditions.max_outstanding:
            return error(429, 429001, "too many outstanding requests")
        return None

    def _strike(self, fault: str | None) -> str | None:
        if fault:
            self.strikes.append(fault)
        return fault

    def _too_fast(self, now: float) -> float:
        """Keep a bucket of a second's worth of submissions; give the seconds until the next may come, 0 if it may."""
        rate = self.conditions.submissions_per_second
        if not rate:
            return 0.0
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return 0.0

    def _refuse_reading(self, request_id: str, token: str, now: float) -> Reply | None:
        if not self._known(token):
            return error(401, 400004, "invalid token")
        if request_id not in self._requests:
            return error(404, 404001, "request missing or expired")
        request = self._requests[request_id]
        request.looks += 1
        if request.fault == "gone" or (request.fault == "forgotten" and now - request.accepted_at < _FORGOTTEN_FOR):
            return error(404, 404001, "request missing or expired")
        match self._strike(struck(self.faults, Strikes.READING, self._draw("read", self.calls))):
            case "stumble":
                return Reply(502, {})
            case "read_busy":
                return error(429, 429001, "too many requests", {"Retry-After": "2"})
            case "read_html":
                return Reply(200, {}, {"Content-Type": "text/html"}, raw=PAGE)
            case "read_cut":
                return Reply(200, self._state(request), manner=Manner.CUT, cut_at=20)
            case "read_reset":
                return Reply(0, {}, manner=Manner.NEVER)
            case "read_other":
                return self._of_another(request, now)
        return None

    def _of_another(self, request: Request, now: float) -> Reply:
        """Answer about another request: the one before, or one that nobody has."""
        others = [one for one in self._requests.values() if one.place == request.place - 1]
        other = others[0] if others else Request(f"{request.id[::-1]}0", request.model, {}, now, 0.0, ended_at=now)
        body = self._state(other)
        if body["status"] == "completed" and not other.error:
            body |= {"status": "succeeded", "output": self._output(other, "https://memory")}
        return Reply(200, body)

    def _accept(
        self, model: str, inputs: Mapping[str, Any], now: float, known: str = "", *, strange: bool = False
    ) -> Request:
        number = len(self._requests) + 1
        request_id = hashlib.sha256(f"{self.conditions.seed} request {number}".encode()).hexdigest()[:32]
        request_id = known or (f"../../{request_id}" if strange else request_id)
        self._last_id = request_id
        self._entered += 1
        request = Request(
            id=request_id,
            model=model,
            inputs=inputs,
            accepted_at=now,
            service=self._service(number, model),
            price=self._price(model, inputs),
            place=self._entered,
        )
        request.fault = self._strike(struck(self.faults, Strikes.JOB, self._draw("job", number)))
        if request.fault in _ERRORS:
            request.error = _ERRORS[request.fault]
        if request.fault == "bill_high":
            request.price *= 2
        self._requests[request_id] = self._queue[request_id] = request
        self.spent += request.price
        self.journal.append({"id": request_id, "at": now, "model": model, "inputs": inputs})
        self._advance(now)
        return request

    def _service(self, number: int, model: str) -> float:
        chance = min(max(self._draw("service", number), 1e-9), 1 - 1e-9)
        median = self.conditions.latencies.get(model, self.conditions.latency)
        return median * math.exp(self.conditions.sigma * NormalDist().inv_cdf(chance))

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
        if request.fault == "stuck" and request.id not in self._queue:
            return {"request_id": request.id, "status": "in_progress"}
        if request.fault == "odd_word" and request.looks % 4 == 1:
            return {"request_id": request.id, "status": "rehydrating"}
        if request.fault == "backwards" and request.looks == _SECOND_LOOK:
            return {"request_id": request.id, "status": "in_queue", "queue_position": 9}
        if request.ended_at is not None:
            return {"request_id": request.id, "status": "completed"}
        if request.id in self._queue:
            place = request.place - self._left_queue
            return {"request_id": request.id, "status": "in_queue", "queue_position": max(1, place)}
        return {"request_id": request.id, "status": "in_progress"}

    def _output(self, request: Request, files: str) -> dict[str, Any]:
        video = "video" in str(self.models[request.model].get("categories"))
        suffix = "webm" if video else str(request.inputs.get("output_format", "png"))
        place = quote(request.id, safe="")
        if request.fault == "file_scheme":
            files = "file:///sandbox"
        urls = [f"{files}/files/{place}/{index}.{suffix}" for index in range(1, request.count + 1)]
        if video:
            return {"video": urls[0]}
        return {"image": urls[0]} if len(urls) == 1 else {"images": urls}

    def _links(self, request_id: str) -> dict[str, str]:
        path = f"/v1/requests/{quote(request_id, safe='')}"
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


def _stamps(request: Request, now: float) -> dict[str, float]:
    if request.fault == "no_stamps":
        return {}
    off = (_CLOCK_OFF, -_CLOCK_OFF)[request.place % 2] if request.fault == "clock_off" else 0.0
    return {"created_at": _stamp(request.accepted_at - off), "finished_at": _stamp((request.ended_at or now) - off)}


def _stamp(at: float) -> float:
    return round(at, 3)
