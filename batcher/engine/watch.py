"""The step of `running`: check a job when its time has come, until it has ended at the server."""

from dataclasses import replace
from typing import Final

from batcher.engine import rules
from batcher.engine.context import CheckAgain, Context, loop_now
from batcher.engine.flight import Flight, Watched
from batcher.engine.status_reader import StatusReader, amiss
from batcher.events import Waiting
from batcher.job import Job, Move, State
from batcher.provider.replies import Completed, Finished, Misdirected, PollReply, Queued, Unavailable, Working

_AGREE: Final = 1.0
"""Seconds that two clocks may differ by."""
_AMISS_AGAIN: Final = 60.0
"""Seconds, at most, until a job is checked again of which a check brought nothing."""


class Watcher:
    """Checks jobs at the server."""

    def __init__(self, context: Context, reader: StatusReader) -> None:
        self._context = context
        self._reader = reader
        self._pace = context.pace

    async def watch(self, flight: Flight) -> Move | CheckAgain:
        """Look at it if its time has come; say when it is to be gone on with."""
        job, watched = flight.job, flight.watched
        if watched is None:
            watched = flight.watched = self._begin_to_watch(flight)
            return self._hold(flight, watched)
        if flight.is_held:
            return self.release(flight, watched)
        move = await self._look_at(flight, watched)
        if move is None:
            later = self._await_outputs(flight, watched) or self._hold(flight, watched)
            if watched.amiss:  # what was answered says nothing of how long it may still take
                later = replace(later, seconds=min(later.seconds, _AMISS_AGAIN))
            self._tell_what_is_amiss(job, watched, later.seconds)
            return later
        flight.watched = None
        self._context.flights.has_outputs(flight)
        self._pace.left(flight)
        return move

    def release(self, flight: Flight, watched: Watched) -> CheckAgain:
        """Return when a job is checked that was held back, now that it is not any more."""
        self._pace.warmup.is_due(flight)
        return self._next_look(flight, watched)

    def _tell_what_is_amiss(self, job: Job, watched: Watched, seconds: float) -> None:
        """Report that checks of a job bring nothing, from the second on, and when they do again."""
        if not watched.amiss:
            if watched.tries > 1:
                self._context.head.waits(
                    Waiting(self._context.tools.clock.now(), job.id, job.spec.name, job.request_id, 0, "")
                )
            watched.tries = 0
            return
        watched.tries += 1
        if watched.tries > 1:
            watch, now = watched.watch, self._context.now()
            if watch.empty_since is not None:
                what, ends = "its outputs", watch.empty_since + rules.LATE_OUTPUTS
            elif watch.missing_since is not None:
                what, ends = "word of its request", watch.missing_since + rules.GONE_AFTER
            else:
                what, ends = "word of its request", watch.moved_at + self._context.retry.job_timeout
            self._context.tell_wait(job, what, watched.tries, watched.amiss, seconds, ends - now)

    def _await_outputs(self, flight: Flight, watched: Watched) -> CheckAgain | None:
        """Return when a job is looked at again that is completed and has no outputs yet; None where it is no such job.

        The server is done with it, so it holds no place in the window: up to as many jobs as may fail in a row, for a
        server that delivers nothing must not be given the whole manifest.
        """
        since, flights = watched.watch.empty_since, self._context.flights
        if since is None:
            flights.has_outputs(flight)
            return None
        watched.tells = False
        self._pace.left(flight)
        frees = not flight.awaits_outputs and flights.awaiting_outputs < self._context.retry.max_failures
        if frees:
            flights.lacks_outputs(flight)
        return CheckAgain(rules.next_look_for_outputs(self._context.now() - since), frees=frees)

    def _begin_to_watch(self, flight: Flight) -> Watched:
        job, fresh, now = flight.job, flight.accepted_now, self._context.now()
        flight.accepted_now = False
        age = 0.0 if job.running_since is None else self._context.tools.clock.now() - job.running_since
        known = fresh or (job.running_since is not None and age >= 0)
        direct = self._context.tools.api.traits.result_tells_state
        watch = rules.Watch(since=now, moved_at=now, direct=direct, ask_result=direct)
        return Watched(watch, loop_now(), 0.0 if fresh else max(0.0, age), fresh=fresh, tells=known)

    def _hold(self, flight: Flight, watched: Watched) -> CheckAgain:
        """Return when the job is checked next; until latencies are known, it may wait for what others tell."""
        wait = self._pace.warmup.hold(flight)
        return self._next_look(flight, watched) if wait is None else CheckAgain(wait)

    def _next_look(self, flight: Flight, watched: Watched) -> CheckAgain:
        first, watched.first = watched.first, False
        return CheckAgain(self._pace.next_check(flight.job, watched.age_at(loop_now()), first=first))

    async def _look_at(self, flight: Flight, watched: Watched) -> Move | None:
        job = flight.job
        reply = await self._look(job, watched.watch)
        if isinstance(reply, Completed) and not watched.watch.ask_result:
            watched.watch = watched.watch.seen(reply, self._context.now())
            result = await self._look(job, watched.watch)
            reply = rules.with_words(reply, result, watched.watch, self._context.now())
        if isinstance(reply, Queued | Working):
            watched.before = watched.age_at(loop_now())
            self._pace.record_queue_position(flight, watched.before, waits=isinstance(reply, Queued))
        watched.watch = watched.watch.seen(reply, self._context.now())
        watched.amiss = amiss(reply)
        if isinstance(reply, Unavailable | Misdirected) and rules.is_overdue(
            watched.watch, self._context.retry, self._context.now()
        ):
            return rules.unreadable(reply) if await self._context.api_answers() else None
        move = rules.after_poll(reply, watched.watch, self._context.retry, self._context.now())
        if move is not None and move.to is State.FETCHING:
            move = replace(move, took=self._learn(job, watched, move.completed_at))
            if isinstance(reply, Finished) and reply.left_out:
                of = len(reply.urls) + reply.left_out
                self._context.head.warn(
                    f"job {job.id}: its result names {of:,} outputs; the first {len(reply.urls):,} are fetched"
                )
            if move.completed_at is None:
                return replace(move, completed_at=self._context.tools.clock.now())
        return move

    def _learn(self, job: Job, watched: Watched, finished: float | None) -> float | None:
        """Learn and return what a job took, by the server's stamp where that lies between what was seen here.

        Of a job that an earlier start sent, and that had ended before anyone looked, there is only the stamp: a clock
        that is hours off would not be noticed.
        """
        if not watched.tells or not (watched.fresh or watched.before):
            return None
        before, age, since = watched.before, watched.age_at(loop_now()), job.running_since or 0.0
        if finished is not None and since + before - _AGREE <= finished <= since + age + _AGREE:
            seconds = max(0.0, finished - since)
            self._pace.learn(job, seconds)
            return seconds
        self._pace.learn(job, age, before)
        return age

    async def _look(self, job: Job, watch: rules.Watch) -> PollReply:
        request, api = await self._context.tools.reference(job), self._context.tools.api
        call = api.result(request, self._context.tools.store.parts) if watch.ask_result else api.status(request)
        return await self._reader.ask(call, job, request)
