"""What a reply means for a job: facts in, a Move out. Waits for nothing and asks nothing."""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from batcher.job import LIFE, Job, Kind, Move, Output, State
from batcher.provider.replies import (
    Accepted,
    Broke,
    Broken,
    Busy,
    Cancelled,
    Completed,
    Finished,
    Forbidden,
    Lost,
    Missing,
    PollReply,
    Queued,
    SubmitReply,
    TurnedDown,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsent,
    Working,
)
from batcher.settings import Retry

ASK_PLACE_AFTER: Final = 60.0
"""Seconds without a move after which a waiting job's place in the queue is asked for, at one more request."""
GONE_AFTER: Final = 600.0
"""Seconds of 404 before a request, or an output, is given up."""
_RESUBMITTED: Final = 3
"""Submissions of a job, each perhaps paid for, after which it stays uncertain even where gaps are to be filled."""
_EMPTY_RESULTS: Final = 3
_WRONG_BYTES: Final = 3
_REFRESH_EVERY: Final = 10


def after_submit(reply: SubmitReply, wait: float, *, proven: bool) -> Move:
    """Say what a submission's reply makes of the job.

    `wait`: the backoff in seconds where the server names none. `proven`: this token has been accepted before,
    so that a 403 speaks of this job alone.
    """
    match reply:
        case Accepted(request_id):
            return Move(State.RUNNING, request_id=request_id)
        case TurnedDown(kind, message):
            return Move(State.FAILED, kind, message)
        case Busy(message, retry_after, shared):
            return Move(State.PENDING, message=message, delay=max(wait, retry_after or 0.0), shared=shared)
        case Unsent(message):
            return Move(State.PENDING, message=message, delay=wait, shared=True, unreached=True)
        case Forbidden(message) if proven:
            return Move(State.FAILED, Kind.REFUSED, message)
        case Unauthorized(message) | Forbidden(message) | Broke(message):
            return Move(State.PENDING, message=message)
        case Lost(message, evidence):
            return Move(State.UNCERTAIN, Kind.LOST, message, evidence=evidence)
        case _:
            assert_never(reply)


@dataclass(frozen=True, slots=True)
class Watch:
    """What has been seen of a running job since this process looks at it. Times are loop seconds."""

    since: float
    moved_at: float
    """When it was first seen at work, or its place in the queue last changed: its time-out runs from here."""
    position: int | None = None
    working: bool = False
    missing_since: float | None = None
    empty_results: int = 0
    completed_at: float | None = None
    """Since when the queue says that it has ended."""
    ask_result: bool = True
    """The next look asks for the result, which until then says where the job stands; else for the status, which
    gives the place in the queue, and is what counts where results are answered oddly."""

    def seen(self, reply: PollReply, now: float) -> "Watch":
        """Take a reply in."""
        match reply:
            case Queued(position):
                moved = position is not None and position != self.position
                watch = replace(
                    self,
                    position=position if moved else self.position,
                    moved_at=now if moved else self.moved_at,
                    ask_result=now - self.moved_at < ASK_PLACE_AFTER,
                )
            case Working():
                watch = replace(self, working=True, moved_at=self.moved_at if self.working else now, ask_result=True)
            case Completed():
                since = self.completed_at if self.completed_at is not None else now
                empty = self.empty_results + self.ask_result
                watch = replace(self, empty_results=empty, ask_result=True, completed_at=since)
            case Finished(()):
                watch = replace(self, empty_results=self.empty_results + 1)
            case Missing() if not self.ask_result:
                return replace(self, missing_since=self.missing_since if self.missing_since is not None else now)
            case Missing() | Unavailable(reached=True) | Unknown():
                return replace(self, ask_result=False)
            case _:
                return self
        return replace(watch, missing_since=None)


def after_poll(reply: PollReply, watch: Watch, retry: Retry, now: float) -> Move | None:
    """Say what a look makes of a running job; None: it is to be looked at again. `watch` has the reply in it."""
    match reply:
        case Finished(urls, billed, finished_at) if urls:
            outputs = tuple(Output(index, url) for index, url in enumerate(urls, start=1))
            return Move(State.FETCHING, outputs=outputs, billed_usd=billed, completed_at=finished_at)
        case Finished(_, billed, _) if watch.empty_results >= _EMPTY_RESULTS:
            return Move(State.FAILED, Kind.NO_OUTPUT, "the result has no output", billed_usd=billed)
        case Completed() if watch.empty_results >= _EMPTY_RESULTS:
            return Move(State.FAILED, Kind.NO_OUTPUT, "the request is completed, and its result has no output")
        case Broken(kind, message, billed):
            return Move(State.FAILED, kind, message, billed_usd=billed)
        case Cancelled(message):
            return Move(State.CANCELLED, message=message)
        case Missing(message) if watch.missing_since is not None and now - watch.missing_since >= GONE_AFTER:
            return Move(State.FAILED, Kind.GONE, f"the server has not known this request for 10 minutes: {message}")
        case Unavailable(reached=True) if (
            watch.completed_at is not None and now - watch.completed_at >= retry.job_timeout
        ):
            return Move(State.FAILED, Kind.TIMEOUT, "it is completed, and its result cannot be had")
        case Queued() | Working() | Unknown() | Missing() if now - watch.moved_at >= retry.job_timeout:
            return Move(State.FAILED, Kind.TIMEOUT, f"nothing came of it within {retry.job_timeout:g} s")
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What has gone wrong with one output's download since it was first tried. Times are loop seconds."""

    since: float | None = None
    dead_since: float | None = None
    """The host has answered 403, 404 or 410 ever since."""
    refreshed: bool = False
    """The result was asked for again, and its URL was tried."""
    interruptions: int = 0
    digest: str | None = None
    """Of the wrong bytes that came last."""
    repeats: int = 0

    def dead(self, now: float) -> "Trouble":
        """Take in that the URL is refused."""
        return replace(self._begun(now), dead_since=self.dead_since if self.dead_since is not None else now)

    def wrong(self, digest: str, now: float) -> "Trouble":
        """Take in wrong bytes."""
        repeats = self.repeats + 1 if digest == self.digest else 1
        return replace(self._begun(now), digest=digest, repeats=repeats, dead_since=None)

    def interrupted(self, now: float) -> "Trouble":
        """Take in that nothing, or not all, arrived."""
        return replace(self._begun(now), interruptions=self.interruptions + 1, dead_since=None)

    def _begun(self, now: float) -> "Trouble":
        return replace(self, since=self.since if self.since is not None else now)

    def renewed(self) -> "Trouble":
        """Take in that the result was asked for again."""
        dead = self.dead_since is not None
        return replace(self, refreshed=self.refreshed or dead, dead_since=None, interruptions=self.interruptions + 1)

    def to_refresh(self, now: float) -> bool:
        """Say whether it is time to ask the result for another URL: its host may have moved, or the URL be dead."""
        if self.dead_since is None:
            return self.interruptions % _REFRESH_EVERY == 2  # noqa: PLR2004 - the first time soon
        return not self.refreshed and now - self.dead_since >= GONE_AFTER

    def expired(self, now: float) -> bool:
        """Say whether the URL is dead for good."""
        return self.refreshed and self.dead_since is not None and now - self.dead_since >= GONE_AFTER

    def bad(self) -> bool:
        """Say whether the same wrong bytes have come too often."""
        return self.repeats >= _WRONG_BYTES

    def lasts(self, now: float) -> float:
        """Give the seconds since it began."""
        return 0.0 if self.since is None else now - self.since


def bought_again(job: Job, retry: Retry) -> Move | None:
    """Say whether a settled job goes back to the queue without being asked: only where the user's settings say so."""
    if job.state is State.FAILED and job.kind is Kind.FAILED and job.attempt < retry.attempts:
        return Move(State.PENDING, message=f"submission {job.attempt} of {retry.attempts} failed: {job.message}")
    if (
        job.state is State.UNCERTAIN
        and retry.uncertain == "resubmit"
        and job.attempt < max(retry.attempts, _RESUBMITTED)
    ):
        wait = float(min(60, 2**job.attempt))
        return Move(State.PENDING, message=f"resubmitted, as retry.uncertain says: {job.message}", delay=wait)
    return None


def after_crash(job: Job) -> Move | None:
    """Say what a job becomes whose process is gone."""
    facts = LIFE[job.state]
    if facts.after_crash is None:
        return None
    return Move(facts.after_crash, facts.after_crash_kind, "the process ended while the submission was on its way")
