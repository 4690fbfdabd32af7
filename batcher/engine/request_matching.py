"""Which of a vendor's past requests is that of an attempt whose answer was lost. Facts in, requests out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.job import SEED, FailureKind, Job
from batcher.provider.replies import PastRequest

CLOCKS_DIFFER: Final = 3600.0
"""Seconds that the vendor's clock may be behind ours, where a seed tells the request from any other."""


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """An attempt of which nobody knows whether it was accepted."""

    job: Job
    sent_within: float
    """Seconds from the intent, at most, to the time at which the server got the request; with a seed of its own it may
    be later, as where the machine slept in between."""
    images: frozenset[str] = frozenset()
    """Inputs that hold images: a vendor may list them in another form than they were sent in."""
    inputs: Mapping[str, object] | None = None
    """All that was sent, where no seed tells the request from others; None where that cannot be told any more."""

    def may_be(self, request: PastRequest) -> bool:
        """Return whether a request, by the time at which it was sent, may be this attempt's."""
        begun = self.job.submitted_at or 0.0
        if self.job.seed is not None:
            return request.sent_at is None or request.sent_at >= begun - CLOCKS_DIFFER
        return request.sent_at is not None and begun <= request.sent_at <= begun + self.sent_within

    def matches(self, request: PastRequest) -> bool:
        """Return whether a request, listed with what was asked for, is one that this attempt may have sent."""
        if request.inputs is None or not self.may_be(request):
            return False
        if self.job.seed is None:
            return self.inputs is not None and request.inputs == self.inputs
        if request.inputs.get(SEED) != self.job.seed:
            return False
        sent, listed = self.job.spec.inputs, request.inputs
        return all(listed[name] == value for name, value in sent.items() if name in listed and name not in self.images)


@dataclass(frozen=True, slots=True)
class Match:
    """A request that is listed, and the jobs whose lost attempts it may be; its payload is not kept."""

    request: PastRequest
    jobs: frozenset[str]


@dataclass(frozen=True, slots=True)
class FoundRequest:
    """A lost submission that was found."""

    job: Job
    """As it is now: at the server."""
    kind: FailureKind | None
    """Why it was uncertain."""


def matched(lost: Sequence[LostAttempt], request: PastRequest) -> Match:
    """Return a request with the jobs whose lost attempts it may be, without its payload."""
    jobs = frozenset(attempt.job.id for attempt in lost if attempt.matches(request))
    return Match(PastRequest(request.request_id, request.sent_at), jobs)


def own_requests(lost: Sequence[LostAttempt], matches: Sequence[Match], *, complete: bool) -> dict[str, PastRequest]:
    """Return, by job id, the request of each of these attempts that certainly is among those listed.

    `complete`: all that was listed could be read. Where it could not, a second candidate may be among the rest, so
    only a seed is certain. What is not listed is not disproven: records may come hours late.
    """
    found: dict[str, PastRequest] = {}
    taken: set[str] = set()
    for attempt in lost:
        own = [one.request for one in matches if attempt.job.id in one.jobs and one.request.request_id not in taken]
        if attempt.job.seed is None and not (complete and len(own) == 1):
            continue  # of two that are alike, nobody can tell which is whose
        if own:
            request = min(own, key=lambda one: one.sent_at or 0.0)
            found[attempt.job.id] = request
            taken.add(request.request_id)
    return found


def to_look_at(lost: Sequence[LostAttempt], listed: Sequence[PastRequest], known: Collection[str]) -> list[PastRequest]:
    """Return the requests listed of which it is worth asking what was asked for: unknown ones of about those times."""
    return [one for one in listed if one.request_id not in known and any(attempt.may_be(one) for attempt in lost)]


def by_time(jobs: Sequence[Job], apart: float) -> list[list[Job]]:
    """Return jobs in groups of submissions that lie no further apart than so many seconds, the oldest group first."""
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda one: one.submitted_at or 0.0):
        if groups and (job.submitted_at or 0.0) - (groups[-1][-1].submitted_at or 0.0) <= apart:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups
