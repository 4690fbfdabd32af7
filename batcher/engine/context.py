"""What the steps of a job share: their tools, the user's rules, and whom they tell. Knows no state of a job."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from batcher.clock import Chance, Clock, time_of_day
from batcher.engine.pace import Pace
from batcher.events import Waiting
from batcher.job import Job
from batcher.outputs.output_folder import OutputFolder
from batcher.outputs.sidecar import Origin
from batcher.provider.answers import TROUBLE
from batcher.provider.calls import Answer, Wire
from batcher.provider.provider import Offer, Provider, Reference
from batcher.settings import Retry

SILENT: Final = 5.0
"""Seconds without an answer that count as the API's silence, which is not charged to a file that is waited for."""
TRIES: Final = 12
"""Tries of one request, with growing waits between them: four minutes in all."""


class StopWalking(Exception):
    """The run cannot go on, and the job is left as it is."""


@dataclass(frozen=True, slots=True)
class CheckAgain:
    """The job stays in its state, and is driven again after so many seconds."""

    seconds: float
    frees: bool = False
    """It occupies no slot of the server any more: the job has ended there, and only its outputs are late."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the steps work with."""

    wire: Wire
    api: Provider
    offer: Callable[[str], Awaitable[Offer]]
    """A model's id, as the manifest names it -> the model as the provider offers it."""
    store: OutputFolder
    clock: Clock
    chance: Chance
    root: Path
    """The manifest's folder: local images are relative to it."""
    origin: Origin
    make_room: Callable[[str, str], Awaitable[str]]
    """(file without extension, job id) -> the name it may take, once what must give way has."""

    async def reference(self, job: Job) -> Reference:
        """Return what is needed to ask about a job's request."""
        offer = await self.offer(job.spec.model)
        return Reference(offer.model_id, job.request_id or "", job.follow, offer.unit_usd)


class Supervisor(Protocol):
    """Who is told by the steps."""

    def halt(self, reason: str, message: str) -> None:
        """Stop the run, for one of the reasons in HALTS."""
        ...

    def check_outage(self) -> None:
        """Look at how long the server has been silent."""
        ...

    def warn(self, message: str) -> None:
        """Warn the user of something that does not stop the run."""
        ...

    def waits(self, event: Waiting) -> None:
        """Report what a job waits for, or that it no longer does."""
        ...


class Context:
    """Shared by all steps of a run. Times are loop seconds."""

    def __init__(self, tools: Tools, pace: Pace, retry: Retry, head: Supervisor) -> None:
        self.tools = tools
        self.pace = pace
        self.flights = pace.flights
        self.retry = retry
        self.head = head
        self.stopping = asyncio.Event()
        """No request that has not left yet may leave."""
        self.suspended = 0.0
        """Seconds during which nothing could be heard."""

    def now(self) -> float:
        """Return the loop's time, without the time during which nothing could be heard."""
        return loop_now() - self.suspended

    async def turn(self) -> None:
        """Wait for a turn under `requests_per_second`."""
        delay = self.pace.rate.delay(loop_now())
        if delay:
            await asyncio.sleep(delay)

    def record_trouble(self, why: str) -> None:
        """Record that the server gave nothing useful."""
        self.pace.outage.record_trouble(loop_now(), why)
        self.head.check_outage()

    async def api_answers(self) -> bool:
        """Return whether the API answers at all, so that what it does not say of one request is not its silence."""
        await self.turn()
        answer = await self.tools.wire.send(self.tools.api.probe())
        return isinstance(answer, Answer) and answer.status < TROUBLE

    def tell_wait(self, job: Job, what: str, tries: int, answer: str, seconds: float, left: float | None) -> None:
        """Report what a job waits for, unless the API answers nobody: that is reported as its silence.

        `seconds` until the next try; `left`: until it is given up, None if that is not known.
        """
        silent = self.pace.outage.since
        if silent is not None and loop_now() - silent > SILENT:
            return
        now = self.tools.clock.now()
        again, until = now + seconds, None if left is None else now + max(left, seconds)
        when = f"again at {time_of_day(again)}"
        if until is not None:
            when += f", given up at {time_of_day(until)}"
        message = f"waits for {what}: try {tries} brought {answer}; {when}"
        self.head.waits(Waiting(now, job.id, job.spec.name, job.request_id, tries, message, again, until))


def loop_now() -> float:
    """Return the running loop's time in seconds."""
    return asyncio.get_running_loop().time()
