"""Which of a vendor's past requests is that of an attempt whose answer was lost. Facts in, requests out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.job import SEED, Job, Kind
from batcher.provider.replies import PastRequest

CLOCKS_DIFFER: Final = 300.0
"""Seconds that the vendor's clock may differ by from ours, where a seed tells the request from any other."""


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """An attempt of which nobody knows whether it was accepted."""

    job: Job
    sent_within: float
    """Seconds from the intent, at most, to the time at which the server got the request."""
    images: frozenset[str] = frozenset()
    """Inputs that hold images: a vendor may list them in another form than they were sent in."""
    inputs: Mapping[str, object] | None = None
    """All that was sent, where no seed tells the request from others; None where that cannot be told any more."""

    def may_be(self, request: PastRequest) -> bool:
        """Return whether a request, by the time at which it was sent, may be this attempt's."""
        begun, slack = self.job.submitted_at or 0.0, CLOCKS_DIFFER if self.job.seed is not None else 0.0
        if request.sent_at is None:
            return self.job.seed is not None
        return begun - slack <= request.sent_at <= begun + self.sent_within + slack


@dataclass(frozen=True, slots=True)
class Found:
    """A lost submission that was found."""

    job: Job
    """As it is now: at the server."""
    kind: Kind | None
    """Why it was uncertain."""


def own_requests(lost: Sequence[LostAttempt], listed: Sequence[PastRequest]) -> dict[str, PastRequest]:
    """Return, by job id, the request of each of these attempts that certainly is among those listed.

    `listed`: with what was asked for, and without those that are known to be another's. What is not among them is not
    disproven: records may come hours late.
    """
    found: dict[str, PastRequest] = {}
    for attempt in lost:
        left = [one for one in listed if one.request_id not in {own.request_id for own in found.values()}]
        if own := _own(attempt, left):
            found[attempt.job.id] = own
    return found


def _own(attempt: LostAttempt, listed: Sequence[PastRequest]) -> PastRequest | None:
    near = [one for one in listed if one.inputs is not None and attempt.may_be(one)]
    if attempt.job.seed is not None:
        seeded = [one for one in near if _has_our_seed(attempt, one.inputs or {})]
        return min(seeded, key=lambda one: one.sent_at or 0.0) if seeded else None
    same = [one for one in near if attempt.inputs is not None and one.inputs == attempt.inputs]
    return same[0] if len(same) == 1 else None  # of two that are alike, nobody can tell which is whose


def _has_our_seed(attempt: LostAttempt, inputs: Mapping[str, object]) -> bool:
    """Return whether a request has this attempt's seed, and contradicts nothing else that was sent."""
    if inputs.get(SEED) != attempt.job.seed:
        return False
    sent = attempt.job.spec.inputs
    return all(inputs[name] == value for name, value in sent.items() if name in inputs and name not in attempt.images)


def to_look_at(lost: Sequence[LostAttempt], listed: Sequence[PastRequest], known: Collection[str]) -> list[PastRequest]:
    """Return the requests listed of which it is worth asking what was asked for: unknown ones of about those times."""
    return [one for one in listed if one.request_id not in known and any(attempt.may_be(one) for attempt in lost)]
