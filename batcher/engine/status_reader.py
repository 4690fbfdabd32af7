"""Asks the API about a request until it says something, and notices answers about other requests."""

import asyncio
from dataclasses import replace
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from batcher.engine.context import TRIES, Context, StopWalking
from batcher.job import Job
from batcher.pacing.outage import backoff
from batcher.provider.calls import Call
from batcher.provider.provider import Reference
from batcher.provider.replies import (
    Completed,
    Finished,
    Forbidden,
    Misdirected,
    Missing,
    PollReply,
    Unauthorized,
    Unavailable,
    Unknown,
)

_MISDIRECTED: Final = 3
"""Jobs whose answers are about other requests, before as many were answered rightly: then something between here and
the API mixes answers up."""


class StatusReader:
    """Reads what the API says of requests, and tells the user if something on the way mixes answers up."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._misdirected: set[str] = set()
        """The first requests of which every answer was about another, over fresh connections too."""
        self._answered: set[str] = set()
        """The first requests that were answered rightly."""
        self._told = False

    async def ask(self, call: Call, job: Job, request: Reference) -> PollReply:
        """Read from the API until it says something of the request, or for some minutes.

        What it must not be asked on for halts the run. What is about another request is asked for anew, over a
        connection of its own.
        """

        def tell(state: RetryCallState) -> None:
            reply: PollReply | None = state.outcome.result() if state.outcome else None
            if reply and state.next_action:
                tries = state.attempt_number + 1  # one was made before
                self._context.tell_wait(job, "word of its request", tries, amiss(reply), state.next_action.sleep, None)

        def says_nothing(reply: PollReply) -> bool:
            if isinstance(reply, Misdirected):
                return True
            return isinstance(reply, Unavailable) and not (reply.reached and call.of_result)

        async def again() -> PollReply:
            return await self._read(replace(call, fresh=True), request)

        reply = await self._read(call, request)
        if says_nothing(reply):  # nearly never: what repeats is made only then, for it costs as much as the request
            await asyncio.sleep(self._wait_after(reply, 0))
            reply = await AsyncRetrying(
                retry=retry_if_result(says_nothing),
                wait=self._wait_to_read,
                sleep=asyncio.sleep,
                stop=stop_after_attempt(TRIES),
                before_sleep=tell,
                retry_error_callback=_last_reply,
            )(again)
        if isinstance(reply, Unauthorized | Forbidden):
            self._context.head.halt("token", reply.message)
            raise StopWalking
        return reply

    async def _read(self, call: Call, request: Reference) -> PollReply:
        await self._context.turn()
        read = self._context.tools.api.read_result if call.of_result else self._context.tools.api.read_status
        reply = read(await self._context.tools.wire.send(call), self._context.tools.clock.now(), request)
        request_id = request.request_id
        match reply:
            case Unavailable():
                self._context.record_trouble(reply.message)
            case Misdirected(named):
                self._context.record_trouble(
                    f"an answer about request {named} came, where {request_id} was asked about"
                )
                self._beware(request_id, named, asked_anew=call.fresh)
            case _:
                if len(self._answered) < _MISDIRECTED:
                    self._answered.add(request_id)
                self._misdirected.discard(request_id)
                self._context.pace.outage.record_answer()
                self._context.head.check_outage()
        return reply

    def _beware(self, request_id: str, named: str, *, asked_anew: bool) -> None:
        """Warn the user once that answers are mixed up; stop if those of the first jobs all are."""
        if not self._told:
            self._told = True
            self._context.head.warn(
                f"an answer about request {named} came, where {request_id} was asked about: it is ignored, and asked "
                "for again over a fresh connection; is there a proxy or a cache on the way to the API?"
            )
        if asked_anew and len(self._answered) < _MISDIRECTED and request_id not in self._answered:
            self._misdirected.add(request_id)
            if len(self._misdirected) >= _MISDIRECTED:
                words = f"the answers about {_MISDIRECTED} of the first requests were about others, such as {named}"
                self._context.head.halt(
                    "unreachable", f"{words}: a proxy or a cache on the way to the API mixes them up"
                )

    def _wait_to_read(self, state: RetryCallState) -> float:
        return self._wait_after(state.outcome.result() if state.outcome else None, state.attempt_number)

    def _wait_after(self, reply: PollReply | None, tries: int) -> float:
        named = reply.retry_after if isinstance(reply, Unavailable) else None
        return max(named or 0.0, backoff(tries, self._context.tools.chance))


def words_of(reply: PollReply) -> str:
    """Return what a reply says that brings nothing, in words."""
    match reply:
        case Unavailable(message):
            return message
        case Misdirected(named):
            return f"an answer about request {named}"
        case _:
            return f"the request is said to be {type(reply).__name__.lower()}"


def amiss(reply: PollReply) -> str:
    """Return what a check was answered if that does not say how far the job is, else an empty text."""
    match reply:
        case Missing(message):
            return message
        case Unavailable() | Misdirected() | Unknown():
            return words_of(reply)
        case Completed() | Finished(()):
            return "that it is completed, without outputs"
        case _:
            return ""


def _last_reply(state: RetryCallState) -> PollReply:
    """Return what came last, once the tries are over."""
    outcome = state.outcome
    reply: PollReply = outcome.result() if outcome else Unavailable("no answer")
    return reply
