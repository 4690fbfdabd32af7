"""Why a run stops, and what then happens to what is in flight."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from batcher.errors import EXIT_BUG, EXIT_STOPPED, EXIT_TOKEN, EXIT_UNREACHABLE
from batcher.job import State


class Drain(IntEnum):
    """What happens to what is in flight once submissions stop; a later word can only be harder."""

    FINISH = 1
    """It is waited for, and fetched."""
    FETCH = 2
    """What is being fetched is finished; what runs remotely runs on."""
    SIGNAL = 3
    """The same, with little time."""
    LEAVE = 4
    """Everything is left but submissions on their way: their answers are waited for."""
    NOW = 5
    """Everything is dropped; submissions in flight become uncertain."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Why no more is submitted."""

    reason: str
    message: str
    exit_code: int
    drain: Drain


HALTS: Final = {
    "token": (EXIT_TOKEN, Drain.FETCH),
    "unreachable": (EXIT_UNREACHABLE, Drain.SIGNAL),
    "balance": (EXIT_STOPPED, Drain.FINISH),
    "budget": (EXIT_STOPPED, Drain.FINISH),
    "time": (EXIT_STOPPED, Drain.FINISH),
    "paused": (EXIT_STOPPED, Drain.FINISH),
    "moved": (EXIT_STOPPED, Drain.FINISH),
    "uncertain": (EXIT_STOPPED, Drain.FINISH),
    "failures": (EXIT_STOPPED, Drain.FINISH),
    "disk": (EXIT_STOPPED, Drain.LEAVE),
    "bug": (EXIT_BUG, Drain.FETCH),
}


def is_left(state: State, drain: Drain, *, late: bool) -> bool:
    """Return whether a job in this state is left as it is when the run ends in that way."""
    match drain:
        case Drain.FINISH:
            return False
        case Drain.FETCH | Drain.SIGNAL:
            return state is State.RUNNING or (late and state is State.FETCHING)
        case Drain.LEAVE:
            return state in {State.RUNNING, State.FETCHING}
        case Drain.NOW:
            return state is not State.PENDING  # an intent half written would be an uncertain job of our own making
