"""What a reply means for a job: facts in, a Move out. Waits for nothing and asks nothing."""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from batcher.job import LIFE, FailureKind, Job, Move, Output, State
from batcher.outputs.failures import Failed, Interrupted, UrlRefused, UrlUnusable, Wrong
from batcher.provider.replies import (
    Accepted,
    Busy,
    Cancelled,
    Completed,
    Finished,
    Forbidden,
    GenerationFailed,
    Lost,
    Misdirected,
    Missing,
    OutOfCredit,
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
LATE_OUTPUTS: Final = 600.0
"""Seconds that a request which is completed may be without outputs: some servers deliver them later."""
_LONGEST_LOOK: Final = 60.0
"""Seconds between two looks for late outputs."""
_WRONG_BYTES: Final = 3
"""Times that the same wrong bytes come before an output counts as wrong."""
_REFRESH_EVERY: Final = 10
"""Interruptions of a download between two questions for a fresh URL."""


def after_submit(reply: SubmitReply, wait: float, *, proven: bool) -> Move:
    """Return what a submission's reply makes of the job.

    `wait`: the backoff in seconds where the server names none. `proven`: this token has been accepted before,
    so that a 403 speaks of this job alone.
    """
    match reply:
        case Accepted(request_id, follow):
            return Move(State.RUNNING, request_id=request_id, follow=follow)
        case TurnedDown(kind, message):
            return Move(State.FAILED, kind, message)
        case Busy(message, retry_after, shared):
            return Move(State.PENDING, message=message, delay=max(wait, retry_after or 0.0), shared=shared)
        case Unsent(message):
            return Move(State.PENDING, message=message, delay=wait, shared=True, unreached=True)
        case Forbidden(message) if proven:
            return Move(State.FAILED, FailureKind.REFUSED, message)
        case Unauthorized(message) | Forbidden(message) | OutOfCredit(message):
            return Move(State.PENDING, message=message)
        case Lost(message, evidence):
            return Move(State.UNCERTAIN, FailureKind.LOST, message, evidence=evidence)
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
    empty_since: float | None = None
    """Since when it is completed and its result has no output; any word that goes back starts it anew."""
    completed_at: float | None = None
    """Since when the queue says that it has ended."""
    ask_result: bool = True
    """The next look asks for the result, which until then says where the job stands; else for the status, which
    gives the place in the queue, and is what counts where results are answered oddly."""
    direct: bool = True
    """The result can be asked for without asking for the status first."""

    def seen(self, reply: PollReply, now: float) -> "Watch":
        """Return what is known once this reply was seen."""
        match reply:
            case Queued(position):
                moved = position is not None and position != self.position
                watch = replace(
                    self,
                    position=position if moved else self.position,
                    moved_at=now if moved else self.moved_at,
                    ask_result=self.direct and now - self.moved_at < ASK_PLACE_AFTER,
                    empty_since=None,
                )
            case Working():
                moved_at = self.moved_at if self.working else now
                watch = replace(self, working=True, moved_at=moved_at, ask_result=self.direct, empty_since=None)
            case Completed() if not self.ask_result:
                watch = replace(self, ask_result=True, completed_at=_first(self.completed_at, now))
            case Completed() | Finished(()):
                since, empty_since = _first(self.completed_at, now), _first(self.empty_since, now)
                watch = replace(self, ask_result=self.direct, completed_at=since, empty_since=empty_since)
            case Missing() if not self.ask_result:
                return replace(self, missing_since=_first(self.missing_since, now))
            case Unknown():
                return replace(self, ask_result=False, empty_since=None)
            case Missing() | Unavailable(reached=True):
                return replace(self, ask_result=False)
            case _:
                return self
        return replace(watch, missing_since=None)


def with_words(queue: Completed, result: PollReply, watch: Watch, now: float) -> PollReply:
    """Return what a look says that found a request completed, and asked for its result.

    Where the queue says that it failed, that counts, unless the result has words of its own: what answers for it
    meanwhile is waited for as long as for late outputs.
    """
    match result:
        case Finished(()) | Completed() | Unknown() if queue.error:
            return GenerationFailed(queue.kind, queue.error)
        case Missing() | Unavailable(reached=True) if (
            queue.error and watch.completed_at is not None and now - watch.completed_at >= LATE_OUTPUTS
        ):
            return GenerationFailed(queue.kind, queue.error)
        case _:
            return result


def next_look_for_outputs(waited: float) -> float:
    """Return the seconds until a completed request is asked for late outputs again, by how long it was without."""
    return min(_LONGEST_LOOK, max(1.0, waited / 2))


def _first(known: float | None, now: float) -> float:
    """Return when something was first seen, which is now where it was not seen before."""
    return now if known is None else known


def after_poll(reply: PollReply, watch: Watch, retry: Retry, now: float) -> Move | None:
    """Return what a look makes of a running job; None: it is to be looked at again. `watch` has the reply in it."""
    match reply:
        case Finished(urls, billed, finished_at, _) if urls:
            outputs = tuple(Output(index, url) for index, url in enumerate(urls, start=1))
            return Move(State.FETCHING, outputs=outputs, billed_usd=billed, completed_at=finished_at)
        case Finished() | Completed() if watch.empty_since is not None and now - watch.empty_since >= LATE_OUTPUTS:
            message = "the request has been completed for 10 minutes, and its result has no output"
            return Move(State.FAILED, FailureKind.NO_OUTPUT, message, billed_usd=_bill(reply))
        case GenerationFailed(kind, message, billed):
            return Move(State.FAILED, kind, message, billed_usd=billed)
        case Cancelled(message):
            return Move(State.CANCELLED, message=message)
        case Missing(message) if watch.missing_since is not None and now - watch.missing_since >= GONE_AFTER:
            return Move(
                State.FAILED, FailureKind.GONE, f"the server has not known this request for 10 minutes: {message}"
            )
        case Unavailable(reached=True) if (
            watch.completed_at is not None and now - watch.completed_at >= retry.job_timeout
        ):
            return Move(State.FAILED, FailureKind.TIMEOUT, "it is completed, and its result cannot be had")
        case Missing(message) if watch.completed_at is not None and now - watch.completed_at >= GONE_AFTER:
            return Move(State.FAILED, FailureKind.GONE, f"it was completed, and its result is gone: {message}")
        case Queued() | Working() | Unknown() | Missing() if is_overdue(watch, retry, now):
            return Move(State.FAILED, FailureKind.TIMEOUT, f"nothing came of it within {retry.job_timeout:g} s")
        case _:
            return None


def is_overdue(watch: Watch, retry: Retry, now: float) -> bool:
    """Return whether a running job has taken as long as one may, since it last was seen to get on."""
    return now - max(watch.moved_at, watch.completed_at or watch.moved_at) >= retry.job_timeout


def unreadable(reply: Unavailable | Misdirected) -> Move:
    """Return what a running job becomes that is overdue, and that an API which does answer says nothing of."""
    said = reply.message if isinstance(reply, Unavailable) else f"an answer about request {reply.named}"
    return Move(State.FAILED, FailureKind.TIMEOUT, f"the API answers, and says nothing of this request: {said}")


def _bill(reply: PollReply) -> float | None:
    return reply.billed_usd if isinstance(reply, Finished) else None


@dataclass(frozen=True, slots=True)
class DownloadTrouble:
    """What has gone wrong with one output's download since it was first tried. Times are loop seconds."""

    since: float | None = None
    dead_since: float | None = None
    """The host has answered 403, 404 or 410 ever since."""
    refreshed: bool = False
    """The result was asked for again, and its URL was tried."""
    renewed_at: float | None = None
    """When the API last gave a fresh result."""
    interruptions: int = 0
    digest: str | None = None
    """Of the wrong bytes that came last."""
    repeats: int = 0

    def dead(self, now: float) -> "DownloadTrouble":
        """Return it with one more refusal of the URL."""
        return replace(self._begun(now), dead_since=_first(self.dead_since, now))

    def wrong(self, digest: str, now: float) -> "DownloadTrouble":
        """Return it with wrong bytes of this digest."""
        repeats = self.repeats + 1 if digest == self.digest else 1
        return replace(self._begun(now), digest=digest, repeats=repeats, dead_since=None)

    def interrupted(self, now: float) -> "DownloadTrouble":
        """Return it with one more try of which nothing, or not all, arrived."""
        return replace(self._begun(now), interruptions=self.interruptions + 1, dead_since=None)

    def _begun(self, now: float) -> "DownloadTrouble":
        return replace(self, since=_first(self.since, now))

    def renewed(self, now: float, silent: float = 0.0) -> "DownloadTrouble":
        """Return it with a fresh result; the API was silent for so many seconds before, which do not count."""
        return replace(
            self,
            since=None if self.since is None else self.since + silent,
            refreshed=self.refreshed or self.dead_since is not None,
            renewed_at=now,
            dead_since=None,
            interruptions=self.interruptions + 1,
        )

    def to_refresh(self, now: float, timeout: float) -> bool:
        """Return whether to ask the result for another URL: its host may have moved, or the URL be dead."""
        if self.is_late(now, timeout):
            return not self.is_over(now, timeout)
        if self.dead_since is None:
            return self.interruptions % _REFRESH_EVERY == 2  # noqa: PLR2004 - the first time soon
        return not self.refreshed and now - self.dead_since >= GONE_AFTER

    def expired(self, now: float) -> bool:
        """Return whether the URL is dead for good."""
        return self.refreshed and self.dead_since is not None and now - self.dead_since >= GONE_AFTER

    def bad(self) -> bool:
        """Return whether the same wrong bytes have come too often."""
        return self.repeats >= _WRONG_BYTES

    def is_late(self, now: float, timeout: float) -> bool:
        """Return whether it has failed for as long as a file may."""
        return self.since is not None and now - self.since >= timeout

    def is_over(self, now: float, timeout: float) -> bool:
        """Return whether it is late, and was tried once more with a result that was asked for when it was late."""
        return self.is_late(now, timeout) and self.renewed_at is not None and self.is_late(self.renewed_at, timeout)


def given_up(
    trouble: DownloadTrouble, got: Failed, now: float, timeout: float, *, asked_anew: bool = False
) -> Move | None:
    """Return what a job becomes whose output is given up; None: it is tried on.

    `timeout`: seconds for which a file may fail. `asked_anew`: it was the result that was asked for, not the file.
    """
    late = trouble.is_late(now, timeout) if asked_anew else trouble.is_over(now, timeout)
    match got:
        case UrlUnusable(message):
            return Move(State.FAILED, FailureKind.UNFETCHED, f"the output can never be fetched: {message}")
        case UrlRefused(message) if trouble.expired(now):
            return Move(State.FAILED, FailureKind.EXPIRED, f"the output is not to be had any more: {message}")
        case Wrong(_, message) if trouble.bad():
            return Move(State.FAILED, FailureKind.BAD_OUTPUT, f"again and again a wrong file: {message}")
        case UrlRefused(message) | Wrong(_, message) | Interrupted(message) if late:
            return Move(State.FAILED, FailureKind.UNFETCHED, f"no whole file came within {timeout:g} s: {message}")
    return None


def bought_again(job: Job, retry: Retry) -> Move | None:
    """Return whether a settled job is queued again without being asked for: only where the user's settings say so."""
    if job.state is State.FAILED and job.kind is FailureKind.FAILED and job.attempt < retry.attempts:
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
    """Return what becomes of a job whose process is gone."""
    facts = LIFE[job.state]
    if facts.after_crash is None:
        return None
    return Move(facts.after_crash, facts.after_crash_kind, "the process ended while the submission was on its way")
