"""One step for each state that a job can be driven from: it acts, and returns the move that follows, or says when."""

import asyncio
from collections.abc import Awaitable, Callable
from operator import not_
from typing import Final

from tenacity import AsyncRetrying, retry_if_result

from batcher.engine.context import CheckAgain, Context, Supervisor, Tools
from batcher.engine.fetch import Fetcher
from batcher.engine.flight import Flight
from batcher.engine.pace import Pace
from batcher.engine.status_reader import StatusReader
from batcher.engine.submit import Submitter
from batcher.engine.watch import Watcher
from batcher.job import Move, State
from batcher.pacing.outage import growing
from batcher.provider.calls import Answer, WireFault
from batcher.settings import Retry

SPARE: Final = 2 * 2**20
"""Bytes of the disk that are left to the ledger and the log."""
Step = Callable[[Flight], Awaitable[Move | CheckAgain]]


class Steps:
    """The steps of a run, and what concerns all of them."""

    def __init__(self, tools: Tools, pace: Pace, retry: Retry, head: Supervisor) -> None:
        self._context = Context(tools, pace, retry, head)
        reader = StatusReader(self._context)
        submitter, self._fetcher = Submitter(self._context), Fetcher(self._context, reader)
        self._watcher = Watcher(self._context, reader)
        self.by_state: dict[State, Step] = {
            State.PENDING: submitter.prepare,
            State.SUBMITTING: submitter.submit,
            State.RUNNING: self._watcher.watch,
            State.FETCHING: self._fetcher.fetch,
        }

    def apply_policy(self, retry: Retry) -> None:
        """Go by other rules from now on."""
        self._context.retry = retry

    def go_on(self) -> None:
        """Submit again, after a stop that is taken back."""
        self._context.stopping.clear()

    def stop(self) -> None:
        """Submit nothing more: a request that is not on its way does not leave."""
        self._context.stopping.set()

    def on_suspend(self, seconds: float) -> None:
        """Charge no job for a time in which nothing could be heard."""
        self._context.suspended += seconds
        for flight in self._context.flights:
            if flight.watched:
                flight.watched.tells = False
        self._context.pace.outage.shift(seconds)
        self._context.tools.wire.on_suspend()

    async def reach(self) -> None:
        """Ask the server for anything, over fresh connections, until it answers."""
        tools = self._context.tools

        async def probe() -> bool:
            answer = await tools.wire.send(tools.api.probe())
            if isinstance(answer, WireFault):
                self._context.record_trouble(answer.message)
            return isinstance(answer, Answer)

        await tools.wire.refresh()
        await AsyncRetrying(retry=retry_if_result(not_), wait=growing(tools.chance), sleep=asyncio.sleep)(probe)

    def release(self, flight: Flight) -> float | None:
        """Return the seconds until a job is checked that was held back from it; None for one that is not."""
        if not (flight.is_held and flight.watched):
            return None
        return self._watcher.release(flight, flight.watched).seconds

    def scarce(self, in_flight: int) -> str | None:
        """Return what to say if the disk has no room for more than what is in flight; None if it has, or may have."""
        needed = SPARE + int(in_flight * self._fetcher.usual_bytes * 1.25)
        free = self._context.tools.store.free()
        if free >= needed:
            return None
        return f"{free / 1e6:,.1f} MB are free where results go, and what is in flight may take {needed / 1e6:,.1f} MB"
