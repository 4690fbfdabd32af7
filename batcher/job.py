"""A job's life: its states, where it may go from each, and what a crash makes of it. Knows no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class State(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    RUNNING = "running"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"


class FailureKind(StrEnum):
    """Why a job failed, or is uncertain."""

    SOURCE = "source"
    INVALID = "invalid"
    REFUSED = "refused"
    FAILED = "failed"
    TIMEOUT = "timeout"
    GONE = "gone"
    NO_OUTPUT = "no_output"
    EXPIRED = "expired"
    BAD_OUTPUT = "bad_output"
    UNFETCHED = "unfetched"
    LOST = "lost"
    CRASH = "crash"


UNTOLD: Final = frozenset({FailureKind.TIMEOUT, FailureKind.GONE})
"""Failures of which nobody knows how they ended at the server, and so what they are billed."""

Kinds = frozenset[FailureKind]
Arrows = Mapping[State, Kinds]
"""The states that may follow, each with the kinds it may carry (none: it carries no kind)."""


def to(*plain: State, failed: Iterable[FailureKind] = (), uncertain: Iterable[FailureKind] = ()) -> Arrows:
    """Name the states that may come next."""
    arrows: dict[State, Kinds] = dict.fromkeys(plain, frozenset())
    if failed := frozenset(failed):
        arrows[State.FAILED] = failed
    if uncertain := frozenset(uncertain):
        arrows[State.UNCERTAIN] = uncertain
    return MappingProxyType(arrows)


@dataclass(frozen=True, slots=True)
class StateFacts:
    """What is true of a job in one state."""

    then: Arrows = field(default_factory=to)
    """Where the run takes it by itself."""
    retry: Mapping[FailureKind | None, State] = field(default_factory=dict)
    """Where the user's `retry` takes it, by the kind it carries."""
    again: State | None = None
    """Where `retry --again` takes it: bought anew."""
    by_hand: Arrows = field(default_factory=to)
    """Where `adopt` and `verify` take it."""
    in_flight: bool = False
    """It may occupy the server: counted against the window."""
    settled: bool = False
    after_crash: State | None = None
    """What it is when the process that moved it is gone; None: it stays as it is."""
    after_crash_kind: FailureKind | None = None


LIFE: Final[Mapping[State, StateFacts]] = MappingProxyType(
    {
        State.PENDING: StateFacts(
            then=to(State.SUBMITTING, State.DONE, failed=[FailureKind.SOURCE]),  # done: taken over from another run
        ),
        State.SUBMITTING: StateFacts(
            then=to(
                State.RUNNING,
                State.PENDING,
                failed=[FailureKind.INVALID, FailureKind.REFUSED],
                uncertain=[FailureKind.LOST, FailureKind.CRASH],
            ),
            in_flight=True,
            after_crash=State.UNCERTAIN,  # the POST may have left
            after_crash_kind=FailureKind.CRASH,
        ),
        State.RUNNING: StateFacts(
            then=to(
                State.FETCHING,
                State.CANCELLED,
                failed=[
                    FailureKind.FAILED,
                    FailureKind.REFUSED,
                    FailureKind.INVALID,
                    FailureKind.TIMEOUT,
                    FailureKind.GONE,
                    FailureKind.NO_OUTPUT,
                ],
            ),
            in_flight=True,
        ),
        State.FETCHING: StateFacts(
            then=to(State.DONE, failed=[FailureKind.EXPIRED, FailureKind.BAD_OUTPUT, FailureKind.UNFETCHED])
        ),
        State.DONE: StateFacts(settled=True, again=State.PENDING, by_hand=to(State.FETCHING)),
        State.FAILED: StateFacts(
            then=to(State.PENDING),  # only a failed generation, where retry.attempts allows another
            retry={
                FailureKind.TIMEOUT: State.RUNNING,
                FailureKind.GONE: State.RUNNING,
                FailureKind.EXPIRED: State.FETCHING,
                FailureKind.BAD_OUTPUT: State.FETCHING,
                FailureKind.UNFETCHED: State.FETCHING,
                FailureKind.NO_OUTPUT: State.FETCHING,
                FailureKind.INVALID: State.PENDING,
                FailureKind.REFUSED: State.PENDING,
                FailureKind.FAILED: State.PENDING,
                FailureKind.SOURCE: State.PENDING,
            },
            again=State.PENDING,
            by_hand=to(State.RUNNING),
            settled=True,
        ),
        State.UNCERTAIN: StateFacts(
            then=to(State.PENDING, State.RUNNING),  # only under `retry.uncertain: resubmit`; where its request is found
            retry={FailureKind.LOST: State.PENDING, FailureKind.CRASH: State.PENDING},
            again=State.PENDING,
            by_hand=to(State.RUNNING),
            settled=True,
        ),
        State.CANCELLED: StateFacts(retry={None: State.PENDING}, again=State.PENDING, settled=True),
    }
)

SETTLED: Final = frozenset(state for state, facts in LIFE.items() if facts.settled)
IN_FLIGHT: Final = frozenset(state for state, facts in LIFE.items() if facts.in_flight)


SEED: Final = "seed"
"""The input that makes one request different from any other, of the models that have it."""
NO_URLS: Final[Mapping[str, str]] = MappingProxyType({})
ASIDE: Final = "aside:"
"""Before the path of a file, where a URL stands: it came within the result, and lies in the run directory."""


@dataclass(frozen=True, slots=True)
class Image:
    """A local image that an input names; it is read and encoded when the job is sent."""

    field: tuple[str | int, ...]
    """Where it stands in the inputs: `("image_urls", 0)`."""
    path: str
    """As the manifest names it, relative to the manifest."""
    sha256: str
    """Of the file as it was when the manifest was read."""
    bytes: int
    """That are sent of it; where it is shrunk first, at most."""
    max_side: int | None = None
    """Longest side in pixels it is shrunk to, None: sent as it is."""


class Spec(NamedTuple):
    """A job as the manifest names it: what is wanted, before anything happened."""

    id: str
    """The first 16 hex digits of the SHA-256 of what is asked for."""
    name: str
    """The file it makes, without extension, relative to `files/`."""
    model: str
    inputs: Mapping[str, object]
    """As sent, but for the local images, which stand as `sha256:HEX`."""
    images: tuple[Image, ...] = ()
    sources: tuple[str, ...] = ()
    """Every image as the manifest names it."""
    vars: Mapping[str, object] = {}
    sample: int = 1
    row: int = 1
    """From 1, the header not counted."""
    rows_file: str | None = None
    estimated_usd: float | None = None
    request_class: str = ""
    """What sets its price and latency beside its model, as the model's catalogue entry tells."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a finished job. Sizes in bytes and pixels."""

    index: int
    """From 1."""
    url: str
    file: str | None = None
    """Relative to the run directory, once it is there."""
    bytes: int | None = None
    sha256: str | None = None
    mime: str | None = None
    width: int | None = None
    height: int | None = None
    downloaded_at: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the ledger holds it. Stamps in seconds since 1970."""

    spec: Spec
    state: State = State.PENDING
    kind: FailureKind | None = None
    message: str | None = None
    attempt: int = 0
    """Submissions so far, those that were certainly not accepted and wait for another try left out."""
    request_id: str | None = None
    created_at: float = 0.0
    submitted_at: float | None = None
    running_since: float | None = None
    """None where it runs at the user's word: when it began is not known."""
    completed_at: float | None = None
    billed_usd: float | None = None
    outputs: tuple[Output, ...] = ()
    follow: Mapping[str, str] = field(default_factory=lambda: NO_URLS)
    """URLs that the server gave to ask about the request by, where they are not those that its documents tell."""
    seed: int | None = None
    """The seed that this attempt sent, where the manifest names none: its request can be told from any other."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.spec.id


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a job's life, with what is learned on the way. Stamps in seconds since 1970."""

    to: State
    kind: FailureKind | None = None
    message: str | None = None
    request_id: str | None = None
    delay: float = 0.0
    """Back to `pending`: seconds before it is tried again."""
    shared: bool = False
    """Back to `pending`: the server is busy for everyone, not for this job alone."""
    unreached: bool = False
    """Back to `pending`: the server was not reached, so that it said nothing of how much it takes."""
    outputs: tuple[Output, ...] = ()
    completed_at: float | None = None
    billed_usd: float | None = None
    evidence: Mapping[str, object] | None = None
    """What was seen on the wire, kept with the attempt."""
    asked: bool = False
    """At the user's word."""
    follow: Mapping[str, str] = field(default_factory=lambda: NO_URLS)
    """URLs that the server gave to ask about the request by, where they are not those that its documents tell."""
    seed: int | None = None
    """Sent with this submission, and with no other."""
    took: float | None = None
    """Seconds from acceptance to the end, where it was seen."""


def allowed(state: State, kind: FailureKind | None, move: Move) -> bool:
    """Return whether a job in this state, of this kind, may take that step."""
    facts = LIFE[state]
    if move.asked:
        if move.to in {facts.retry.get(kind), facts.again}:
            return move.kind is None
        return move.to in facts.by_hand and move.kind is None
    if move.to not in facts.then:
        return False
    kinds = facts.then[move.to]
    return move.kind in kinds if kinds else move.kind is None
