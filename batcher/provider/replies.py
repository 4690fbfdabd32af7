"""What the remote API may answer, as closed sets of values, one a call. Knows no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batcher.job import FailureKind

Evidence = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job is in the server's queue under this id: it will be billed."""

    request_id: str
    follow: Mapping[str, str] = field(default_factory=dict)
    """URLs by which the server wants to be asked about it, where they are not those that its documents tell."""


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """Certainly not accepted, and never will be as it is."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Certainly not accepted for want of room; `retry_after` in seconds where the server says."""

    message: str
    retry_after: float | None = None
    shared: bool = True
    """Everyone is to wait, not this job alone."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """No byte had left: certainly not accepted."""

    message: str


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The token is missing, wrong or expired."""

    message: str


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The token may not do this: the whole account, or this one job."""

    message: str


@dataclass(frozen=True, slots=True)
class OutOfCredit:
    """The account has no balance."""

    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """It may have been accepted, or not: nobody can tell."""

    message: str
    evidence: Evidence = field(default_factory=dict)


SubmitReply = Accepted | TurnedDown | Busy | Unsent | Unauthorized | Forbidden | OutOfCredit | Lost


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits; `position` in the queue where the server says."""

    position: int | None


@dataclass(frozen=True, slots=True)
class Working:
    """It is being made."""


@dataclass(frozen=True, slots=True)
class Completed:
    """It ended, says the queue; what came of it is the result's to say."""

    error: str = ""
    """The queue's own words where it failed; the result's are better, if it has any."""
    kind: FailureKind = FailureKind.FAILED
    """Why it failed, where it did."""


@dataclass(frozen=True, slots=True)
class Finished:
    """It is done: the outputs' URLs, what was billed (USD), when it ended (seconds since 1970)."""

    urls: tuple[str, ...]
    billed_usd: float | None
    finished_at: float | None
    left_out: int = 0
    """Outputs that the result names beyond the most that are taken."""


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """The generation failed, or was refused for its content; the server's own words."""

    kind: FailureKind
    message: str
    billed_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was cancelled, by whomever."""

    message: str = "cancelled at the server"


@dataclass(frozen=True, slots=True)
class Missing:
    """The server knows no such request."""

    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A status that no one has described."""

    word: str


@dataclass(frozen=True, slots=True)
class Misdirected:
    """An answer about another request than the one that was asked about: it says nothing of ours."""

    named: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No answer, or none that says anything; `retry_after` in seconds where the server says."""

    message: str
    retry_after: float | None = None
    reached: bool = False
    """Something answered."""


PollReply = (
    Queued
    | Working
    | Completed
    | Finished
    | GenerationFailed
    | Cancelled
    | Missing
    | Unknown
    | Misdirected
    | Unavailable
    | Unauthorized
    | Forbidden
)


@dataclass(frozen=True, slots=True)
class CancelDone:
    """The server took it out of its queue."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The server was asked to; whether it ends unfinished is for its state to tell."""


@dataclass(frozen=True, slots=True)
class CancelTooLate:
    """It runs or has ended: it cannot be cancelled."""

    message: str


CancelReply = CancelDone | CancelAsked | CancelTooLate | Missing | Misdirected | Unavailable | Unauthorized | Forbidden


@dataclass(frozen=True, slots=True)
class Reached:
    """The API answers, and takes the token."""


ProbeReply = Reached | Unauthorized | Unavailable


@dataclass(frozen=True, slots=True)
class PastRequest:
    """One of the requests that the vendor lists. Stamps in seconds since 1970, None where they are not known."""

    request_id: str
    sent_at: float | None
    inputs: Mapping[str, object] | None = None
    """What was asked for, where it was listed with its payload."""


@dataclass(frozen=True, slots=True)
class PastPage:
    """A page of past requests."""

    requests: tuple[PastRequest, ...]
    cursor: str | None
    """By which the next page is asked for, None: this is the last."""


PastReply = PastPage | Unauthorized | Unavailable
