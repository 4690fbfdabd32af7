"""The deciders of one run, together, kept up to date with every move."""

from dataclasses import dataclass

from batcher.job import Job, Kind, Move, State
from batcher.pacing.budget import Budget
from batcher.pacing.caution import Caution
from batcher.pacing.patience import Patience
from batcher.pacing.polling import Latencies
from batcher.pacing.window import Rate, Window
from batcher.settings import Policy


@dataclass(slots=True)
class Pace:
    """May I, when, how long. Times are loop seconds, money is USD."""

    window: Window
    rate: Rate
    patience: Patience
    budget: Budget
    caution: Caution
    latencies: Latencies

    def obey(self, policy: Policy) -> None:
        """Go by other limits from now on."""
        self.window.widen(policy.limits.concurrency)
        self.rate.per_second = policy.limits.requests_per_second
        self.budget.limit = policy.limits.max_cost_usd
        self.patience.limit = policy.retry.patience
        self.caution.max_uncertain = policy.retry.max_uncertain
        self.caution.max_failures = policy.retry.max_failures

    def saw(self, before: Job, after: Job, move: Move, in_flight: int, now: float) -> float | None:
        """Take note of a move that is on disk; give the seconds of a hold that begins with it."""
        self.caution.saw(before.state, after.state, after.kind)
        estimate = after.spec.estimated_usd
        if before.state is not State.SUBMITTING:
            if before.state is State.PENDING and after.state is not State.SUBMITTING:
                self.budget.release(estimate)
            elif before.billed_usd is None:
                self.budget.settle(estimate, move.billed_usd)
            return None
        if after.state is State.RUNNING:
            self.window.accepted(in_flight)
            self.patience.eased()
        elif after.state is State.FAILED and after.kind in {Kind.INVALID, Kind.REFUSED}:
            self.window.turned_down()
            self.patience.eased()
            self.budget.release(estimate)
        elif after.state is State.PENDING:
            self.budget.release(estimate)
            return self._turned_away(move, in_flight, now)
        return None

    def _turned_away(self, move: Move, in_flight: int, now: float) -> float | None:
        if not move.delay:
            return None
        self.patience.strained(now, move.message or "")
        if move.shared or self.window.refused_alone():
            return move.delay if self.window.refused(in_flight, now, move.delay) else None
        return None
