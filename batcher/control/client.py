"""Asks the run at work to carry out a command, and waits for its answer; where no run is at work, does it here."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import TypeAdapter

from batcher.control import mailbox
from batcher.control.commands import Command, Result
from batcher.errors import CommandRefused, CopyInUse, LedgerInUse
from batcher.ledger.lock import is_locked

R = TypeVar("R", bound=Result)
_LOOK_EVERY: Final = 0.1
"""Seconds between two looks for the answer: what a user does not notice."""
PATIENCE: Final = 30.0
"""Seconds that an answer is waited for: a run that is expanding its manifest answers once that is done."""


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What came of a command. `by_run`: the run at work carried it out."""

    result: R
    by_run: bool


async def carry_out(
    out: Path, command: Command, result: type[R], here: Callable[[], Awaitable[R]], wait: float = PATIENCE
) -> Done[R]:
    """Carry a command out here, if no run holds the directory; else have that run do it, within `wait` seconds.

    Raises CommandRefused where the run says no, LedgerInUse where nobody answers: the command is then taken back.
    """
    while True:
        try:
            return Done(await here(), by_run=False)
        except CopyInUse:  # which reads no commands that are left here
            raise
        except LedgerInUse:
            file = mailbox.post(out, command)
        if answer := await _wait_for_answer(out, file, wait):
            return Done(TypeAdapter(result).validate_python(answer.result), by_run=True)


async def _wait_for_answer(out: Path, file: Path, wait: float) -> mailbox.CommandAnswer | None:
    """Return the run's answer; None where the run has ended without one. Raises CommandRefused, LedgerInUse."""
    for _ in range(int(wait / _LOOK_EVERY)):
        await asyncio.sleep(_LOOK_EVERY)
        if not file.exists():
            return _checked(out, mailbox.take_answer(file))
        if not is_locked(out):
            file.unlink(missing_ok=True)
            return None
    try:
        file.unlink()
    except FileNotFoundError:  # at the last moment
        return _checked(out, mailbox.take_answer(file))
    raise LedgerInUse(
        f"what is at work on {out} did not answer within {wait:g} s; the request was taken back",
        "a run answers once its manifest is expanded, other commands never do: try again in a while",
    )


def _checked(out: Path, answer: mailbox.CommandAnswer | None) -> mailbox.CommandAnswer | None:
    """Return an answer that tells what came of the command; None where the directory's next holder removed it."""
    if answer is None:
        return None
    if answer.failure:
        raise CommandRefused(answer.failure.error, answer.failure.hint, answer.failure.exit_code)
    if answer.result is None:
        raise LedgerInUse(
            f"what is at work on {out} has taken the request, and could not write what came of it",
            "is the disk full? `status` shows how the run stands",
        )
    return answer
