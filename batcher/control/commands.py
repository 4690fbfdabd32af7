"""What can be asked of a run at work, and what came of it, as values; their JSON is written and read here alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from batcher.errors import WrongUse
from batcher.job import State
from batcher.ledger.retry import RetrySelection
from batcher.settings import Limits, Retry


@dataclass(frozen=True, slots=True)
class RetryJobs:
    """Queue settled jobs again."""

    which: RetrySelection
    do: Literal["retry"] = "retry"


@dataclass(frozen=True, slots=True)
class LeaveUncertain:
    """Note that the user has looked at what is uncertain, and leaves it as it is."""

    do: Literal["leave_uncertain"] = "leave_uncertain"


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """Continue a job under the request id that the user found."""

    job_id: str
    request_id: str
    do: Literal["adopt"] = "adopt"


@dataclass(frozen=True, slots=True)
class MendFiles:
    """Fetch files of done jobs again, and write sidecars again: job id -> indices of outputs."""

    files: Mapping[str, list[int]]
    sidecars: Mapping[str, list[int]]
    do: Literal["mend"] = "mend"


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """Change settings for as long as the run works: name, as in the manifest -> value, as text."""

    settings: Mapping[str, str]
    do: Literal["set"] = "set"


@dataclass(frozen=True, slots=True)
class Pause:
    """Finish what is in flight, and let no `run` go on until `resume`."""

    do: Literal["pause"] = "pause"


@dataclass(frozen=True, slots=True)
class CancelQueued:
    """Cancel what is queued at the server, and submit nothing more."""

    do: Literal["cancel"] = "cancel"


Command = RetryJobs | LeaveUncertain | AdoptRequest | MendFiles | ChangeSettings | Pause | CancelQueued


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """It was done, and there is nothing more to say of it."""


@dataclass(frozen=True, slots=True)
class JobsRetried:
    """Settled jobs are queued again."""

    jobs: int


@dataclass(frozen=True, slots=True)
class RequestAdopted:
    """A job goes on with this request."""

    job_id: str
    request_id: str
    state: State


@dataclass(frozen=True, slots=True)
class FileLost:
    """Why a file could not be fetched again."""

    job_id: str
    message: str


@dataclass(frozen=True, slots=True)
class FilesMended:
    """Files by their paths below the run directory."""

    fetched: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    """Sidecars."""
    lost: list[FileLost] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """What the run at work goes by from now on."""

    limits: Limits
    retry: Retry


@dataclass(frozen=True, slots=True)
class QueueCancelled:
    """Jobs that were cancelled, and jobs that could not be, and run on at the server."""

    cancelled: int
    running: int


Result = Acknowledged | JobsRetried | RequestAdopted | FilesMended | SettingsChanged | QueueCancelled

_COMMAND: Final[TypeAdapter[Command]] = TypeAdapter(Annotated[Command, Field(discriminator="do")])


def write_command(command: Command) -> bytes:
    """Return a command as JSON."""
    return _COMMAND.dump_json(command)


def read_command(text: bytes) -> Command:
    """Return the command that a file holds. Raises WrongUse where it is none."""
    try:
        return _COMMAND.validate_json(text)
    except ValueError as error:
        raise WrongUse(f"not a command that a run takes: {error}") from None
