"""The remote queue as a pure world: calls and the time go in, facts come out, and a journal of what was accepted.

Nothing here sleeps, opens or draws from chance of its own, nor words an answer: a face does that for each protocol, and
the HTTP server and the tests' in-memory wire are shells around both. Times are seconds since 1970, money is USD.
"""

import hashlib
import heapq
import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Final

from jsonschema import Draft202012Validator

from batcher.sandbox.faults import MAYBE_ACCEPTED, TURNED_AWAY, FaultPoint, checked, struck

_COUNT_FIELDS: Final = ("num_images", "number_of_images")
_HALF: Final = 0.5
"""Share of the submissions that are accepted, of those whose answer does not tell."""
_MOST_FILES: Final = 64
"""Outputs of a request."""
_LATE_TRIES: Final = 2
"""Tries that a file of the fault `file_late` is not there yet."""
_FORGOTTEN_FOR: Final = 30.0
"""Seconds for which a request of the fault `forgotten` is not known."""
_LATE_BY: Final = 4.0
"""Seconds after its end at which a request's outputs are there, where they are late."""
_SECOND_LOOK: Final = 2
"""The check at which a request of the fault `backwards` is said to wait again."""
_POLICY_WORD: Final = "forbidden-by-policy"
"""A prompt with this word is refused for its content, so that a rehearsal can show what that looks like."""


class RefusalReason(StrEnum):
    """Why a call is refused, or a request failed."""

    TOKEN = "token"  # noqa: S105 - no token
    MODEL = "model"
    INPUT = "input"
    """It breaks the model's schema."""
    POLICY = "policy"
    BALANCE = "balance"
    OUTSTANDING = "outstanding"
    """Too many requests are outstanding."""
    RATE = "rate"
    MISSING = "missing"
    FAILED = "failed"
    IMAGE = "image"
    """An input image cannot be had, or decoded."""
    TIMEOUT = "timeout"
    """It was not started within the time that its sender set."""


_ERRORS: Final = {
    "fail": (RefusalReason.FAILED, "the generation failed: internal model error"),
    "refuse": (RefusalReason.POLICY, "the output was blocked by the content policy"),
}


@dataclass(frozen=True, slots=True)
class SubmissionRefused:
    """A call that the server does not carry out."""

    why: RefusalReason
    message: str
    details: tuple[str, ...] = ()
    retry_after: float | None = None
    """Seconds."""


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
    list_lag: float = 0.0
    """Seconds after its start at which a request is in the list of past ones."""
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
    why: RefusalReason | None = None
    """Of its error."""
    start_by: float = math.inf
    """When it is not to be started any more."""
    fault: str | None = None
    """What goes wrong with it, a name of `faults.py`."""
    price: float = 0.0
    place: int = 0
    looks: int = 0
    """How often its state was asked for."""

    @property
    def count(self) -> int:
        """How many files it makes."""
        return _count(self.inputs)


def _count(inputs: Mapping[str, Any]) -> int:
    """Return how many files a request makes; what is no such number is for the schema to refuse."""
    wanted = next((inputs[name] for name in _COUNT_FIELDS if name in inputs), 1)
    return wanted if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 < wanted <= _MOST_FILES else 1


class RequestState(StrEnum):
    """Where a request stands."""

    QUEUED = "queued"
    WORKING = "working"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ODD = "odd"
    """A word that no one has described."""


@dataclass(frozen=True, slots=True)
class RequestStanding:
    """Where a request stands; `position` in the queue, from 1, while it waits."""

    word: RequestState
    position: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission: the fault that struck it, and the request, where it was accepted."""

    fault: str | None
    request: Request | None
    earlier: Request | None = None
    """The request before."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked about, and the fault that struck the asking."""

    request: Request
    fault: str | None = None


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

    def submit(
        self, model: str, body: object, token: str, now: float, *, judged: bool = True, start_within: float = math.inf
    ) -> Submission | SubmissionRefused:
        """Accept a submission; `judged`: by the model's schema and the policy at once, else only when it is run.

        `start_within`: seconds after which it is not to be started any more.
        """
        self._advance(now)
        self.calls += 1
        if refusal := self._refuse_submission(model, body, token, judged=judged):
            return refusal
        if wait := self._too_fast(now):
            return SubmissionRefused(RefusalReason.RATE, "too many submissions", retry_after=math.ceil(wait))
        fault = self._strike(struck(self.faults, FaultPoint.SUBMISSION, self._draw("submit", self.calls)))
        if fault in TURNED_AWAY:
            return Submission(fault, None)
        if fault in MAYBE_ACCEPTED and self._draw("accept anyway", self.calls) < _HALF:
            return Submission(fault, None)
        earlier = self._requests.get(self._last_id)
        inputs = body if isinstance(body, dict) else {}
        accepted = self._accept(model, inputs, now, strange=fault == "strange_id", start_by=now + start_within)
        if not judged and (problem := self._judged(model, body)):
            accepted.why, accepted.error = problem.why, "; ".join((problem.message, *problem.details))
        return Submission(fault, accepted, earlier)

    def read(self, request_id: str, token: str, now: float) -> Reading | SubmissionRefused:
        """Ask about a request; a fault may strike the answer."""
        self._advance(now)
        self.calls += 1
        if not self._known(token):
            return SubmissionRefused(RefusalReason.TOKEN, "invalid token")
        request = self._requests.get(request_id)
        if request is None:
            return SubmissionRefused(RefusalReason.MISSING, "request missing or expired")
        request.looks += 1
        if request.fault == "gone" or (request.fault == "forgotten" and now - request.accepted_at < _FORGOTTEN_FOR):
            return SubmissionRefused(RefusalReason.MISSING, "request missing or expired")
        fault = self._strike(struck(self.faults, FaultPoint.READING, self._draw("read", self.calls)))
        return Reading(request, fault)

    def standing(self, request: Request) -> RequestStanding:
        """Return where a request stands."""
        if request.cancelled:
            return RequestStanding(RequestState.CANCELLED)
        if request.fault == "stuck" and request.id not in self._queue:
            return RequestStanding(RequestState.WORKING)
        if request.fault == "odd_word" and request.looks % 4 == 1:
            return RequestStanding(RequestState.ODD)
        if request.fault == "backwards" and request.looks == _SECOND_LOOK:
            return RequestStanding(RequestState.QUEUED, 9)
        if request.ended_at is not None:
            return RequestStanding(RequestState.COMPLETED)
        if request.id in self._queue:
            return RequestStanding(RequestState.QUEUED, max(1, request.place - self._left_queue))
        return RequestStanding(RequestState.WORKING)

    @staticmethod
    def has_output(request: Request, now: float) -> bool:
        """Return whether the outputs of a completed request are there."""
        late = request.fault == "late_output" and now - (request.ended_at or now) < _LATE_BY
        return not (late or request.fault == "no_output")

    def cancel(self, request_id: str, now: float) -> bool:
        """Remove a request from the queue; return whether it was in it."""
        request = self._queue.pop(request_id, None)
        if request is None:
            return False
        request.cancelled, request.ended_at = True, now
        self.spent -= request.price
        self.journal.append({"cancelled": request_id, "at": now})
        return True

    def past(self, model: str, since: float, now: float) -> list[Request]:
        """Return the requests of a model that the list of past ones shows, the latest first: those that were started.

        What was sent before `since` is left out.
        """
        self._advance(now)
        self.calls += 1
        lag = self.conditions.list_lag
        return [
            one
            for one in reversed(self._requests.values())
            if one.model == model
            and one.fault != "unlisted"
            and one.accepted_at >= since
            and one.started_at is not None
            and one.started_at + lag <= now
        ]

    def left(self) -> float:
        """Return the dollars that are left."""
        left = self.conditions.balance - self.spent
        return left if math.isfinite(left) else 1_000_000.0

    def knows(self, token: str) -> bool:
        """Return whether a token is taken."""
        return self._known(token)

    def before(self, request: Request) -> Request | None:
        """Return the request that was accepted before this."""
        return next((one for one in self._requests.values() if one.place == request.place - 1), None)

    # What its shells need to know.

    def request(self, request_id: str) -> Request | None:
        """Return an accepted job."""
        return self._requests.get(request_id)

    def file_fault(self, request_id: str, index: int, tries: int) -> str | None:
        """Return what goes wrong with this download: the same at each try, except for faults that pass."""
        steady = self._strike(struck(self.faults, FaultPoint.FILE, self._draw(f"file {request_id}", index)))
        if steady == "tear":
            return "tear" if self._draw(f"tear {request_id} {index}", tries) < self.faults["tear"] else None
        return None if steady == "file_late" and tries > _LATE_TRIES else steady

    def down(self, now: float) -> bool:
        """Return whether nothing listens."""
        return any(begins <= now < ends for begins, ends in self.conditions.outages)

    def fail(self, request_id: str, why: str) -> None:
        """Fail a job for what only a shell can find out: an input image that cannot be fetched."""
        self._requests[request_id].error, self._requests[request_id].why = why, RefusalReason.IMAGE

    def replay(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Make the world again from its journal."""
        for entry in entries:
            if "cancelled" in entry:
                self._advance(float(entry["at"]))
                self.cancel(str(entry["cancelled"]), float(entry["at"]))
            else:
                self._advance(float(entry["at"]))
                self._accept(
                    str(entry["model"]),
                    entry["inputs"],
                    float(entry["at"]),
                    known=str(entry["id"]),
                    start_by=float(entry.get("start_by", math.inf)),
                )
                if problem := self._judged(str(entry["model"]), entry["inputs"]):
                    request = self._requests[str(entry["id"])]
                    request.why, request.error = problem.why, "; ".join((problem.message, *problem.details))

    # How it works.

    def _known(self, token: str) -> bool:
        return bool(token) and self.conditions.token in {"", token}

    def _judged(self, model: str, body: object) -> SubmissionRefused | None:
        """Return what is wrong with an input, by the model's schema and the policy."""
        problems = tuple(error.message for error in self._validators[model].iter_errors(body))
        if problems:
            return SubmissionRefused(RefusalReason.INPUT, "invalid input", problems[:5])
        if _POLICY_WORD in str(body.get("prompt", "") if isinstance(body, dict) else ""):
            return SubmissionRefused(RefusalReason.POLICY, "the prompt violates the content policy")
        return None

    def _refuse_submission(self, model: str, body: object, token: str, *, judged: bool) -> SubmissionRefused | None:
        if not self._known(token):
            return SubmissionRefused(RefusalReason.TOKEN, "invalid token")
        if model not in self.models:
            return SubmissionRefused(RefusalReason.MODEL, f"no such model: {model}")
        if judged and (problem := self._judged(model, body)):
            return problem
        if self.spent + self._price(model, body) > self.conditions.balance:
            return SubmissionRefused(RefusalReason.BALANCE, "insufficient balance")
        outstanding = len(self._queue) + len(self._running)
        if self.conditions.max_outstanding and outstanding >= self.conditions.max_outstanding:
            return SubmissionRefused(RefusalReason.OUTSTANDING, "too many outstanding requests")
        return None

    def _strike(self, fault: str | None) -> str | None:
        if fault:
            self.strikes.append(fault)
        return fault

    def _too_fast(self, now: float) -> float:
        """Keep a bucket of a second's worth of submissions; return the seconds until the next may come, 0 if it may."""
        rate = self.conditions.submissions_per_second
        if not rate:
            return 0.0
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return 0.0

    def _accept(
        self,
        model: str,
        inputs: Mapping[str, Any],
        now: float,
        known: str = "",
        *,
        strange: bool = False,
        start_by: float = math.inf,
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
            start_by=start_by,
        )
        request.fault = self._strike(struck(self.faults, FaultPoint.JOB, self._draw("job", number)))
        if request.fault in _ERRORS:
            request.why, request.error = _ERRORS[request.fault]
        if request.fault == "bill_high":
            request.price *= 2
        self._requests[request_id] = self._queue[request_id] = request
        self.spent += request.price
        due = {} if math.isinf(start_by) else {"start_by": start_by}
        self.journal.append({"id": request_id, "at": now, "model": model, "inputs": inputs, **due})
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
        each = own.get(str(given.get("resolution", default)), entry.get("base_price_usd", 0.0))
        return round(float(each) * _count(given), 6)

    def _advance(self, now: float) -> None:
        """Advance to this time: jobs end, and those that waited take their slots in the order of acceptance."""
        while True:
            while self._queue and len(self._running) < self.conditions.slots:
                request_id, request = self._queue.popitem(last=False)
                self._left_queue = request.place
                request.started_at = max(request.accepted_at, request.started_at or 0.0)
                if request.started_at > request.start_by:
                    self._give_up(request)
                    continue
                heapq.heappush(self._running, (request.started_at + request.service, request_id))
            if not self._running or self._running[0][0] > now:
                while self._queue and (first := next(iter(self._queue.values()))).start_by < now:
                    del self._queue[first.id]
                    self._give_up(first)
                return
            ended_at, request_id = heapq.heappop(self._running)
            self._requests[request_id].ended_at = ended_at
            if self._queue:
                following = next(iter(self._queue.values()))
                following.started_at = max(ended_at, following.accepted_at)

    def _give_up(self, request: Request) -> None:
        """End a request that was not started in time: it is not billed."""
        request.started_at, request.ended_at = None, request.start_by
        request.why, request.error = RefusalReason.TIMEOUT, "the request was not started within its time"
        self.spent -= request.price

    def _draw(self, what: str, number: int) -> float:
        """Draw a number from 0 to 1 that only the seed, the thing and its number decide."""
        digest = hashlib.sha256(json.dumps([self.conditions.seed, what, number]).encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56
