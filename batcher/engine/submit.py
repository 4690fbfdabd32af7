"""The steps of `pending` and `submitting`: build the request, then send it once. The only place that submits."""

import asyncio
from contextlib import suppress

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from batcher.engine import rules
from batcher.engine.context import TRIES, Context, loop_now
from batcher.engine.flight import Flight
from batcher.hosting.inline import ImageNotUsable, body
from batcher.job import SEED, FailureKind, Job, Move, State
from batcher.outputs.download import FULL_HANDED
from batcher.pacing.outage import backoff, growing
from batcher.provider.replies import Accepted, Forbidden, OutOfCredit, Unauthorized


class Submitter:
    """Prepares and submits jobs."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def prepare(self, flight: Flight) -> Move:
        """Build the request while nothing is at stake; its Move is the intent to send it."""
        job = flight.job
        seed = await self._own_seed(job)
        try:
            if job.spec.images:
                flight.body = await self._read_images(job, seed)
            else:
                flight.body = body(job.spec, self._context.tools.root, seed)
        except ImageNotUsable as why:
            return Move(State.FAILED, FailureKind.SOURCE, str(why))
        if delay := self._context.pace.rate.delay(loop_now()):
            with suppress(TimeoutError):  # its turn has come; a stop ends the wait
                await asyncio.wait_for(self._context.stopping.wait(), delay)
        return Move(State.SUBMITTING, seed=seed)

    async def _own_seed(self, job: Job) -> int | None:
        """Draw a seed for this attempt alone, by which its request is found in the vendor's list should it be lost.

        None where there is no such list, the model takes no seed, or the manifest names one.
        """
        if self._context.tools.api.history is None or SEED in job.spec.inputs:
            return None
        seeds = (await self._context.tools.offer(job.spec.model)).seeds
        return None if seeds is None else self._context.tools.chance.choice(seeds)

    async def _read_images(self, job: Job, seed: int | None) -> bytes:
        """Build a request with local images. That too many files are open says nothing of these, and passes."""
        tools = self._context.tools
        trying = AsyncRetrying(
            retry=retry_if_exception(_passes),
            wait=growing(tools.chance),
            sleep=asyncio.sleep,
            stop=stop_after_attempt(TRIES),
            reraise=True,
        )
        return await trying(asyncio.to_thread, body, job.spec, tools.root, seed)

    async def submit(self, flight: Flight) -> Move:
        """Send it, once; the intent is on disk."""
        context, job, request = self._context, flight.job, flight.body
        flight.body = None
        if request is None:
            raise ValueError(f"job {job.id} was not prepared")
        if context.stopping.is_set():
            return Move(State.PENDING, message="not sent: the run was stopping")
        model_id = (await context.tools.offer(job.spec.model)).model_id
        call = context.tools.api.submit(model_id, request, context.retry.patience)
        reply = context.tools.api.read_submit(await context.tools.wire.send(call), context.tools.clock.now(), model_id)
        proven = context.pace.circuit_breaker.accepted > 0
        match reply:
            case Accepted():
                flight.accepted_now = True
            case Unauthorized(message):
                context.head.halt("token", message)
            case Forbidden(message) if not proven:
                context.head.halt("token", message)
            case OutOfCredit(message):
                context.head.halt("balance", message)
        wait = backoff(context.pace.window.holds + context.pace.window.silences, context.tools.chance)
        return rules.after_submit(reply, wait, proven=proven)


def _passes(error: BaseException) -> bool:
    """Return whether a file could not be opened because too many are."""
    return isinstance(error, OSError) and error.errno in FULL_HANDED
