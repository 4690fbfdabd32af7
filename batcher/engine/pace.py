"""The deciders of one run, together, kept up to date with every move."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from batcher.engine.flight import Flight, Flights
from batcher.engine.warmup import Warmup
from batcher.job import UNTOLD, FailureKind, Job, Move, State
from batcher.money import price_class
from batcher.pacing.budget import Budget
from batcher.pacing.circuit_breaker import CircuitBreaker
from batcher.pacing.outage import Outage
from batcher.pacing.polling import (
    PRICE,
    PRICE_AWAITED,
    PRICE_DRAINING,
    PRICE_EMPTIED,
    PRICE_LAST,
    PRICE_QUEUED,
    LatencyModels,
    next_check,
)
from batcher.pacing.window import Rate, Speed, Window
from batcher.settings import Policy

_EARLY_LOOKS: Final = 24
"""One job in so many is looked at early."""
_EARLY: Final = 0.06
"""Of the usual latency."""
_FEW_SLOTS: Final = 16
"""A server that takes fewer jobs at once is asked more often for each: in all that is no more."""
_CUTS: Final = 8
"""Refusals for speed, each after a slower pace than before, that show it is not speed."""


def kind(job: Job) -> tuple[str, str]:
    """Return a job's kind."""
    return price_class(job.spec.model, job.spec.request_class)


@dataclass(slots=True)
class Pace:
    """May I, when, how long. Times are loop seconds, money is USD."""

    window: Window
    speed: Speed
    rate: Rate
    outage: Outage
    budget: Budget
    circuit_breaker: CircuitBreaker
    usual: LatencyModels
    flights: Flights = field(default_factory=Flights)
    warmup: Warmup = field(default_factory=Warmup)
    queue: bool | None = None
    """The server has jobs waiting: what has ended unnoticed keeps none of its slots idle. None: it never had any."""
    draining: bool = False
    """Nothing waits to be submitted any more."""
    last: bool = False
    """Of what is in flight, few are left."""
    _first_looks: int = 0

    def __post_init__(self) -> None:
        self.usual.under_way = self._ages
        self.warmup.over = self.usual.all.enough

    def _ages(self, of: Hashable | None) -> list[float]:
        seen = [flight for flight in self.flights if flight.seen_at_work is not None and of in {None, kind(flight.job)}]
        return [flight.seen_at_work or 0.0 for flight in seen]

    def learn(self, job: Job, seconds: float, before: float | None = None) -> None:
        """Learn what a job took from acceptance to its end; `before`: the age at which it was last seen at work."""
        self.usual.learn(kind(job), seconds, before)
        if self.usual.all.enough:
            self.warmup.over = True

    def left(self, flight: Flight) -> None:
        """Record that a job is not checked any more."""
        self.warmup.left(flight)
        flight.seen_at_work = None

    def next_check(self, job: Job, age: float, *, first: bool) -> float:
        """Return the wait before a job of this age, not finished just now, is checked (again).

        A few are looked at when they have hardly begun, for that alone tells whether the server has a queue.
        """
        known = self.usual.of(kind(job))
        self._first_looks += first
        if first and self._first_looks % _EARLY_LOOKS == 0 and not self.window.limited and (curve := known.curve):
            return min(_EARLY * curve.usual, next_check(age, known, PRICE_QUEUED))
        return next_check(age, known, self._price())

    def _price(self) -> float:
        """Return the price of a check, in usual latencies."""
        if self.draining:
            return PRICE_LAST if self.last else PRICE_DRAINING
        if self.window.limited:
            return PRICE_AWAITED * min(1.0, self.window.size / _FEW_SLOTS)
        return PRICE if self.queue is None else PRICE_QUEUED if self.queue else PRICE_EMPTIED

    def record_queue_position(self, flight: Flight, age: float, *, waits: bool) -> None:
        """Record whether a job of that age waits in the server's queue, or is at work already."""
        flight.seen_at_work = age
        curve = self.usual.of(kind(flight.job)).curve
        if waits:
            self.queue = True
        elif self.queue and curve and age < 2 * _EARLY * curve.usual:
            self.queue = False

    def price(self, job: Job) -> float:
        """Return what a job may cost."""
        return self.budget.price(kind(job), job.spec.estimated_usd)

    def affords(self, job: Job, *, alone: bool) -> bool:
        """Return whether there is money for a job; `alone`: nothing else is being worked on."""
        return self.budget.affords(kind(job), job.spec.estimated_usd, alone=alone)

    def reserve(self, job: Job) -> None:
        """Set aside what a job may cost."""
        self.budget.reserve(job.id, kind(job), job.spec.estimated_usd)

    def apply_policy(self, policy: Policy) -> None:
        """Go by other limits from now on."""
        self.window.widen(policy.limits.concurrency)
        self.rate.change(policy.limits.requests_per_second)
        self.budget.change_limit(policy.limits.max_cost_usd)
        self.outage.limit = policy.retry.patience
        self.circuit_breaker.max_uncertain = policy.retry.max_uncertain
        self.circuit_breaker.max_failures = policy.retry.max_failures

    def saw(self, before: Job, after: Job, move: Move, running: int, now: float) -> float | None:
        """Record a move that is on disk; return the seconds of a hold that begins with it, or None."""
        self.circuit_breaker.saw(before.state, after.state, after.kind)
        if before.state is not State.SUBMITTING:
            if before.state is State.PENDING and after.state is not State.SUBMITTING:
                self.budget.release(after.id)
            elif before.billed_usd is None:
                self.budget.settle(after.id, kind(after), after.spec.estimated_usd, move.billed_usd)
            if after.state in {State.DONE, State.FAILED, State.CANCELLED} and after.kind not in UNTOLD:
                self.budget.settle_unbilled(after.id, has_result=after.state is State.DONE)
            return None
        if after.state is State.RUNNING:
            if self.window.accepted(running):
                self.speed.too_fast(now)
            self.speed.accepted(now)
            self.outage.record_answer()
        elif after.state is State.FAILED and after.kind in {FailureKind.INVALID, FailureKind.REFUSED}:
            self.window.turned_down()
            self.outage.record_answer()
            self.budget.release(after.id)
        elif after.state is State.PENDING:
            self.budget.release(after.id)
            return self._turned_away(move, running, now)
        return None

    def _turned_away(self, move: Move, running: int, now: float) -> float | None:
        if not move.delay:
            return None
        self.outage.record_trouble(now, move.message or "")
        if move.unreached:
            return move.delay if self.window.unreached(now, move.delay) else None
        if move.shared or self.window.refused_alone():
            if not self.window.refused(running, now, move.delay):
                return None
            self.speed.refused(now)
            if self.window.by_speed:
                self.speed.too_fast(now, move.delay)
                if self.speed.cuts >= _CUTS:  # however slowly: it was their number all along
                    self.speed.forget()
                    self.window.cut(running)
            return move.delay
        return None
