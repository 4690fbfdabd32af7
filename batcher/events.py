"""What happened in a run: a closed set of records, each a row of the ledger, and who may hear of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from batcher.errors import Stopped
from batcher.job import FailureKind, State


@dataclass(frozen=True, slots=True)
class Started:
    """A run began, or went on."""

    at: float
    name: str
    provider: str
    states: Mapping[str, int]
    concurrency: int = 0
    billed_usd: float = 0.0
    """Before this start."""
    left_usd: float | None = None
    """The estimate of the jobs that this start is to bring to rest, None where a price is not known."""
    limit_usd: float | None = None
    vendor: str = ""
    """Whose protocol is spoken; a sandbox stands in for it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A job went from one state to another; it is on disk."""

    at: float
    job_id: str
    name: str
    came_from: State
    to: State
    kind: FailureKind | None
    message: str | None
    request_id: str | None
    attempt: int
    billed_usd: float | None = None
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Submissions wait: the server is full, silent, or must be treated with care."""

    at: float
    why: str
    seconds: float
    window: int | None = None
    """Jobs that the server is thought to take at once."""
    reached: bool = True
    """The server has said so; False: nothing could be heard of it."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know, that stops nothing."""

    at: float
    message: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The server has given nothing useful since a while (a stamp); or, `since` None, it does again."""

    at: float
    message: str
    since: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that the server has waits for something that did not come as it should; or, `tries` 0, it does no more."""

    at: float
    job_id: str
    name: str
    request_id: str | None
    tries: int
    message: str
    """What for, how often, the last answer, the next try, and when it is given up; times of day are this machine's."""
    again_at: float | None = None
    until: float | None = None
    """When it is given up; None: never by itself."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """No more is submitted; what is in flight may still be waited for."""

    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Settings of the run at work were changed; it forgets them when it ends."""

    at: float
    settings: Mapping[str, str]
    concurrency: int
    limit_usd: float | None


@dataclass(frozen=True, slots=True)
class Noted:
    """Something for the log alone."""

    at: float
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A run ended; `stopped` says why where work is left."""

    at: float
    exit_code: int
    stopped: Stopped | None


Event = Started | Moved | Held | Warned | Silence | Waiting | Stopping | Changed | Noted | Ended


class Listener(Protocol):
    """Hears of each event after it is on disk. It cannot steer: one that raises is dropped, and named once."""

    def __call__(self, event: Event) -> None:
        """Record the event."""
        ...


def facts_of(event: Event) -> dict[str, Any]:
    """Return an event's facts by name, quicker than `asdict` does: there are several a job."""
    facts = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, Ended) and event.stopped:
        facts["stopped"] = asdict(event.stopped)
    return facts
