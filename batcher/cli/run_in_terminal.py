"""Works a run that is open until it ends: signals, progress, summary, exit code. What `run` and `resume` share."""

import asyncio
import contextlib
import signal

from batcher.cli.json_events import JsonEvents
from batcher.cli.messages import say, say_stopped
from batcher.errors import BatcherError
from batcher.runs.logged import logged
from batcher.runs.run import Run
from batcher.show.progress import Progress, listener
from batcher.show.run_status import RunStatus
from batcher.show.status import status
from batcher.show.words import summary
from batcher.terminal_text import command

_TICK = 5.0
"""Seconds."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def work(run: Run, *, quiet: bool, lines: JsonEvents | None, verbose: bool = False) -> int:
    """Work until the run ends; return its exit code. `lines`: what is said as JSON, in the place of progress."""
    loop = asyncio.get_running_loop()
    async with logged(run):
        if lines:
            run.directory.listen(lines)
        ticking = None
        if not lines and not quiet:
            progress = listener(loop.time, verbose=verbose)
            run.directory.listen(progress)
            ticking = asyncio.create_task(_tick(progress))
        listen_to_signals(run)
        begun = loop.time()
        try:
            outcome = await run.work()
        finally:
            if ticking:
                ticking.cancel()
            _hear_no_more()
    if not lines:
        found = None if quiet else await _status(run)
        if found:
            for line in summary(found, run.directory.out, took=loop.time() - begun):
                say(line)
            if found.files:
                say(f"look at it: {command('report', run.directory.out, '--open')}")
        elif outcome.stopped:
            say_stopped(outcome.stopped)
    return outcome.exit_code


async def _tick(progress: Progress) -> None:
    """Report progress while nothing happens, as long as somebody reads it."""
    with contextlib.suppress(OSError, ValueError):
        while True:
            await asyncio.sleep(_TICK)
            progress.tick()


async def _status(run: Run) -> RunStatus | None:
    """Return how the run stands; None where its directory cannot be read any more, which is then why it stopped."""
    with contextlib.suppress(OSError, BatcherError):
        return await asyncio.to_thread(status, run.directory.out)
    return None


def listen_to_signals(run: Run) -> None:
    """Hand signals to the run. One that was ignored when we started, as under nohup, stays ignored."""
    loop = asyncio.get_running_loop()

    pressed = 0

    def stop(number: int) -> None:
        nonlocal pressed
        pressed += 1
        run.stop(number)
        if pressed == 1:
            say("stopping: waiting for submissions on their way and files in hand; once more abandons them,")
            say("and what was being submitted then may be billed all the same")
        elif pressed == 2:  # noqa: PLR2004 - the second
            say("dropped: what was being submitted may be billed; the next start holds such jobs as uncertain")

    for one in _SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            loop.add_signal_handler(one, stop, int(one))


def _hear_no_more() -> None:
    """Ignore signals while the end is written: by itself one would kill the process."""
    loop = asyncio.get_running_loop()
    for one in _SIGNALS:
        if loop.remove_signal_handler(one):
            signal.signal(one, signal.SIG_IGN)
