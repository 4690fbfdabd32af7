"""Carries out, for a run at work, what other processes ask of it. Decides nothing of a command."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from batcher.control import mailbox
from batcher.control.commands import Command, Result
from batcher.errors import EXIT_BUG, BatcherError

CarryOut = Callable[[Command], Awaitable[Result]]
Complain = Callable[[Exception], Awaitable[None]]


async def serve(out: Path, carry_out: CarryOut, complain: Complain, ended: asyncio.Event, every: float) -> int:
    """Carry out the commands posted for a directory, until the run has ended, and once more then; count them.

    `every`: seconds between two looks; `complain` is told of what could not be carried out. Each command has a task of
    its own: one that waits for the server keeps no other waiting.
    """
    tasks: dict[Path, asyncio.Task[None]] = {}
    begun: set[Path] = set()
    last = False
    try:
        while not last:
            last = ended.is_set()
            for file in mailbox.unanswered(out):
                if file not in begun:  # also where its answer could not be written: once, it may buy
                    begun.add(file)
                    tasks[file] = asyncio.create_task(_answer(file, carry_out, complain))
            tasks = {file: task for file, task in tasks.items() if not task.done()}
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), every)
        await asyncio.gather(*tasks.values())
    finally:
        for task in tasks.values():
            task.cancel()
    return len(begun)


async def _answer(file: Path, carry_out: CarryOut, complain: Complain) -> None:
    """Do what a file asks, and answer it."""
    came: Result | mailbox.Failure
    try:
        came = await carry_out(mailbox.read(file))
    except (BatcherError, OSError, ValueError, TypeError, LookupError) as error:
        exit_code = error.exit_code if isinstance(error, BatcherError) else EXIT_BUG
        came = mailbox.Failure(str(error), getattr(error, "hint", ""), exit_code)
        await complain(error)
    with suppress(OSError):  # whoever asked does it itself once the run has ended
        mailbox.answer(file, came)
