"""Feeds jobs into the window, walks each to its rest, and drains what is in flight when the run ends."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Final

from batcher.clock import rfc3339
from batcher.engine.context import CheckAgain, StopWalking, Tools, loop_now
from batcher.engine.flight import Flight
from batcher.engine.pace import Pace
from batcher.engine.request_matching import FoundRequest
from batcher.engine.rules import bought_again
from batcher.engine.shutdown import HALTS, Drain, Halt, is_left
from batcher.engine.steps import Steps
from batcher.errors import EXIT_STOPPED, BatcherError, LedgerBroken, WrongUse
from batcher.events import Held, Silence, Stopping, Waiting, Warned
from batcher.job import FailureKind, Job, Move, State
from batcher.ledger.ledger import Ledger, Overtaken
from batcher.pacing.budget import Budget
from batcher.settings import Policy

GRACE: Final = 8.0
"""Seconds that files in hand have after a signal, once the last submission was answered."""
_BODIES_AT_ONCE: Final = 128 * 2**20
"""Bytes of local images in requests that are not accepted yet: two of the largest requests."""
_LAST_FEW: Final = 16
"""Of jobs in flight, or an eighth of the window: with so few left, each may be the one that the run ends with."""
_UNDECIDED: Final = "are uncertain, and you have not decided about them yet"
_IDLE: Final = 30.0
"""Seconds after which the ledger is read again though nothing was told: only a move by another process needs it."""
_SOON: Final = 0.25
"""Seconds."""
_AHEAD: Final = 64
"""Jobs that are read from the ledger at once."""


FindLost = Callable[[], Awaitable[Sequence[FoundRequest]]]


class Engine:
    """One run's work, from what an earlier one left to its end. Jobs in flight are counted from their states."""

    def __init__(
        self, ledger: Ledger, pace: Pace, policy: Policy, tools: Tools, find_lost: FindLost | None = None
    ) -> None:
        self._ledger = ledger
        self._pace = pace
        self._policy = policy
        self._clock = tools.clock
        self._steps = Steps(tools, pace, policy.retry, self)
        self._find_lost = find_lost
        """Looks for lost submissions where the vendor lists past requests; returns those that it found."""
        self._flights = pace.flights
        self._changed = asyncio.Event()
        self._timer_context = copy_context()
        """One for all timers: a copy for each would cost memory."""
        self._ahead: deque[Job] = deque()
        """Waiting jobs, next in turn."""
        self._woken = 0
        self._no_more = False
        """The ledger has no job waiting, until one comes back."""
        self._shut = False
        """There was no room when waiting jobs were last to be started."""
        self._told: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._searching = False
        self._outage_timer: asyncio.TimerHandle | None = None
        """When a silence of the server is next looked at: to be told, or to end the run."""
        self.halted: Halt | None = None

    def apply_policy(self, policy: Policy) -> None:
        """Go by other limits and patience from now on."""
        self._policy = policy
        self._pace.apply_policy(policy)
        self._steps.apply_policy(policy.retry)
        self._changed.set()

    @property
    def policy(self) -> Policy:
        """The limits and the patience that it goes by now."""
        return self._policy

    @property
    def budget(self) -> Budget:
        """What is known of the user's money."""
        return self._pace.budget

    def reserve(self, job: Job) -> None:
        """Set aside what a job may cost that was submitted by hand."""
        self._pace.reserve(job)

    def decided(self) -> None:
        """Count what becomes uncertain from now on: the user has decided about the rest."""
        self._pace.circuit_breaker.decided()

    def prefer_breadth(self, *, broad: bool) -> None:
        """Choose whether each row gets one job before any row gets a second, or the manifest's order counts."""
        if broad != self._pace.budget.broad:
            self._pace.budget.broad = broad
            self.wake()

    def halt(self, reason: str, message: str) -> None:
        """Stop submitting, for one of the reasons in HALTS."""
        self.stop(Halt(reason, message, *HALTS[reason]))

    def check_outage(self) -> None:
        """Stop after a silence longer than the user's patience; tell once since when it lasts, and when it is over."""
        outage, now = self._pace.outage, loop_now()
        if outage.exhausted(now):
            self.halt("unreachable", outage.why)
        if outage.to_tell(now):
            lasts = now - outage.since if outage.since is not None else 0.0
            since = self._clock.now() - lasts
            message = f"the server has given nothing useful since {rfc3339(since)}: {outage.why}"
            self._tell(Silence(self._clock.now(), message, since))
        elif outage.over():
            self._tell(Silence(self._clock.now(), "the server answers again", None))
        self._check_outage_in(outage.next_check(now))

    def _check_outage_in(self, seconds: float | None) -> None:
        """Look at the silence once more then: what waits for the server may wait for longer than the user would."""
        if self._outage_timer:
            self._outage_timer.cancel()
        self._outage_timer = None
        if seconds is not None and (self.halted is None or self.halted.drain < Drain.SIGNAL):
            self._outage_timer = asyncio.get_running_loop().call_later(seconds, self.check_outage)

    def warn(self, message: str) -> None:
        """Warn the user of something that does not stop the run."""
        self._tell(Warned(self._clock.now(), message))

    def waits(self, event: Waiting) -> None:
        """Report what a job waits for."""
        self._tell(event)

    def _tell(self, event: Silence | Stopping | Waiting | Warned) -> None:
        saying = self._ledger.wait(event) if isinstance(event, Waiting) else self._ledger.say(event)
        task = asyncio.create_task(saying)
        self._told.add(task)
        task.add_done_callback(self._told_one)

    def _told_one(self, task: asyncio.Task[None]) -> None:
        self._told.discard(task)
        if not task.cancelled():
            task.exception()  # a ledger that cannot be written says so elsewhere

    def stop(self, halt: Halt) -> None:
        """Stop submitting; the first reason stands, the hardest way to end counts."""
        if self.halted is None:
            self.halted = halt
            if halt.drain < Drain.LEAVE:  # what is left as it is ends at once, and a ledger that failed tells nobody
                self._tell(Stopping(self._clock.now(), halt.reason, halt.message))
        elif halt.drain > self.halted.drain:
            said = halt if halt.reason == "interrupted" else self.halted
            self.halted = replace(said, drain=halt.drain)
        self._steps.stop()
        self._changed.set()

    async def search(self) -> Sequence[FoundRequest]:
        """Look for lost submissions; return those that were found. Nothing is submitted meanwhile."""
        if self._find_lost is None or self._searching:
            return []
        self._searching = True
        try:
            found = await self._find_lost()
        finally:
            self._searching = False
            self._changed.set()
        self._pace.circuit_breaker.found(sum(one.kind is not FailureKind.CRASH for one in found))
        if found and self.halted and self.halted.reason == "uncertain" and not self._pace.circuit_breaker.too_uncertain:
            self.halted = None
            self._steps.go_on()
        return found

    async def rest(self, seconds: float) -> None:
        """Wait for so long, unless the run is told to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.halted is None or self.halted.drain is Drain.FINISH:
                    self._changed.clear()
                    await self._changed.wait()

    def on_suspend(self, seconds: float) -> None:
        """Charge no job for a time in which nothing could be heard, and ask the server before going on."""
        self._steps.on_suspend(seconds)
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._find_server(self._pace.window.closed_until), name="probe")
            self._pace.window.closed_until = math.inf

    async def _find_server(self, held_until: float) -> None:
        """Resume submissions once the server can be reached again, over fresh connections."""
        try:
            await self._steps.reach()
        finally:
            self._pace.window.closed_until = held_until
            self._changed.set()

    async def run(self) -> Halt | None:
        """Work until every selected job has settled, or until something stops the run."""
        try:
            try:
                await self._take_up()
                await self._feed()
            except Exception as error:  # noqa: BLE001 - whatever it is, what is on its way is waited for
                self._went_wrong("the run", error)
            await self._drain()
        finally:
            self._check_outage_in(None)
            for flight in self._flights:
                if flight.timer:
                    flight.timer.cancel()
                if flight.task:
                    flight.task.cancel()
            if self._probe:
                self._probe.cancel()
            await asyncio.gather(*self._told, return_exceptions=True)
        return self.halted

    def _went_wrong(self, where: str, error: Exception) -> None:
        """Send nothing more; the answers that are on their way are waited for, and their request ids saved."""
        match error:
            case LedgerBroken():
                self.halt("disk", str(error))
            case OSError() | WrongUse() if not isinstance(error, TimeoutError | ConnectionError):
                self.halt("disk", f"{where}: {error}")  # the run directory does not take what is written
            case BatcherError():
                self.halt("bug", f"{where}: {error}")
            case _:  # a defect of ours: the run stops, and says where
                self.halt("bug", f"{where}: {error!r}")

    def take(self, job: Job) -> None:
        """Drive a job that is not at rest; one whose walk is just ending is taken when it has."""
        if flight := self._flights.get(job.id):
            flight.next = job
        elif job.state in self._steps.by_state:
            self._go_on(self._flights.add(job))

    def _go_on(self, flight: Flight) -> None:
        """Drive a job that no task drives."""
        flight.timer = None
        flight.task = asyncio.create_task(self._guarded(flight), name=flight.job.id)
        flight.task.add_done_callback(self._ended)  # runs for a task too that never got to begin

    def _check_again(self, flight: Flight, when: float) -> None:
        """Drive a job again at that loop time, and not at one that was set before."""
        if flight.timer:
            flight.timer.cancel()
        flight.timer = asyncio.get_running_loop().call_at(when, self._go_on, flight, context=self._timer_context)

    def wake(self) -> None:
        """Look at the ledger again: jobs may have come back."""
        self._no_more = False
        self._ahead.clear()
        self._woken += 1
        self._changed.set()

    async def _take_up(self) -> None:
        """Go on with what an earlier process left."""
        if self._pace.circuit_breaker.too_uncertain:
            self.halt("uncertain", f"{self._pace.circuit_breaker.uncertain} submissions {_UNDECIDED}")
        if self._find_lost is None:  # else they are looked for first
            await self.resubmit()
        for state in (State.FETCHING, State.RUNNING):
            for job in await self._ledger.under_way(state):
                self.take(job)

    async def _feed(self) -> None:
        while self.halted is None:
            self._changed.clear()
            started = await self._fill()
            self._pace.draining = self._read_out and not self._flights.starting
            self._pace.last = len(self._flights) <= max(_LAST_FEW, self._pace.window.ceiling // 8)
            if not started and not self._flights and await self._ledger.due_in() is None:
                return
            await self._wait(await self._next_chance())

    @property
    def _read_out(self) -> bool:
        """No job waits that is not at hand already."""
        return self._no_more and not self._ahead

    async def _fill(self) -> int:
        """Start as many waiting jobs as there is room for."""
        room = self._room()
        self._shut = room <= 0
        if room <= 0 or self._read_out:
            return 0
        if scarce := self._steps.scarce(self._flights.occupying + self._flights.states[State.FETCHING]):
            self.stop(Halt("disk", scarce, EXIT_STOPPED, Drain.FINISH))  # what is there is room enough for
            return 0
        if self._pace.budget.price_changed:
            self._pace.budget.price_changed = False
            left = float((await self._ledger.ask("left_estimate"))[0][0])
            self.prefer_breadth(broad=self._pace.budget.short_of(left))
        await self._read_ahead(room)
        started = 0
        while self._ahead and started < room:
            job = self._ahead[0]
            if self._flights.starting_bytes > _BODIES_AT_ONCE:
                break
            if not self._pace.affords(job, alone=not self._flights):
                self._no_money(job)
                break
            self._ahead.popleft()
            self._pace.reserve(job)
            self.take(job)
            self._pace.speed.take(loop_now(), 1)
            started += 1
        return started

    async def _read_ahead(self, room: int) -> None:
        """Read the next waiting jobs, some of them ahead of their turn.

        A job that is moved by someone else before its turn is noticed when its intent is written.
        """
        if self._ahead:
            return
        wanted, woken = max(room, _AHEAD) + self._flights.starting, self._woken
        waiting = await self._ledger.waiting(wanted, broad=self._pace.budget.broad)
        if woken == self._woken:
            self._ahead.extend(job for job in waiting if job.id not in self._flights)
            self._no_more = len(waiting) < wanted and not self._ahead

    def _no_money(self, job: Job) -> None:
        """Wait for a bill that is lower than its estimate; stop where none can come any more."""
        if self._flights:
            return
        limit = self._pace.budget.limit or 0.0
        if job.spec.estimated_usd is None:
            self.halt("budget", f"the next job, {job.spec.name}, has no price: say it under `prices:` in the manifest")
            return
        self.halt(
            "budget",
            f"the next job may cost {self._pace.price(job):.2f} USD, and {self._pace.budget.committed:.2f} "
            f"of max_cost_usd {limit:.2f} is already spent or reserved",
        )

    def _room(self) -> int:
        if self._searching:
            return 0
        starting = self._flights.starting
        if self._pace.circuit_breaker.single_file and starting:
            return 0
        now = loop_now()
        room = min(self._pace.window.room(self._flights.occupying, starting, now), self._pace.speed.room(now))
        return min(room, 1) if self._pace.circuit_breaker.single_file else room

    async def _next_chance(self) -> float:
        """Return the seconds after which there may be room or work without anything having moved."""
        hold = self._pace.window.opens_in(loop_now())
        if hold:
            return min(_IDLE, hold)
        if self._shut and self._room() > 0:
            return 0.0  # the hold has ended since it was asked
        if self._flights and self._room() <= 0 and not self._pace.speed.opens_in(loop_now()):
            self._no_more = False
            return _IDLE  # room comes with a job that moves, and that is told
        due = await self._ledger.due_in()
        opens = self._pace.speed.opens_in(loop_now())
        if due is None or (due == 0 and (opens or not self._read_out)):  # it waits for its turn, or for what is told
            return min(_IDLE, opens or _IDLE)
        self._no_more = False
        return min(_IDLE, due or _SOON)  # it has come due since the ledger was read, or is being started

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            self._no_more = False

    async def _drain(self) -> None:
        deadline: float | None = None
        while self._flights:
            self._changed.clear()
            drain = self.halted.drain if self.halted else Drain.FINISH
            if drain is Drain.SIGNAL and deadline is None and not self._flights.starting:
                deadline = loop_now() + GRACE
            late = deadline is not None and loop_now() >= deadline
            for flight in self._flights if drain is not Drain.FINISH or self._flights.awaiting_outputs else ():
                if flight.awaits_outputs or is_left(flight.job.state, drain, late=late):  # late outputs may never come
                    self._leave(flight)
            await self._wait(0.5 if deadline is not None else _IDLE)

    async def _guarded(self, flight: Flight) -> None:
        """Walk a job; what goes wrong on the way stops the run, never silently."""
        try:
            await self.walk(flight)
        except StopWalking:
            pass
        except Overtaken:
            if flight.job.state is State.PENDING:  # nothing was sent for what was set aside
                self._pace.budget.release(flight.job.id)
            self.wake()
        except Exception as error:  # noqa: BLE001 - never silently
            self._went_wrong(f"job {flight.job.id}", error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Count a job out whose walk is over, however it ended, unless it goes on later."""
        flight = self._flights.get(task.get_name())
        if flight is None or flight.task is not task:
            return  # its time came before this was told
        flight.task = None
        if flight.timer is None:
            self._count_out(flight)

    def _count_out(self, flight: Flight) -> None:
        self._pace.left(flight)
        self._flights.remove(flight)
        if flight.next:
            self.take(flight.next)
        self._changed.set()

    def _leave(self, flight: Flight) -> None:
        """Drive a job no more, whatever is being done for it."""
        if flight.timer:
            flight.timer.cancel()
            flight.timer = None
        if flight.task:
            flight.task.cancel()  # it counts the job out, also where it has just ended
        else:
            self._count_out(flight)

    async def walk(self, flight: Flight) -> None:
        """Drive a job until it rests: settled, back in the queue, or at the server until it is checked again."""
        while step := self._steps.by_state.get(flight.job.state):
            if self._stays(flight.job.state):
                return
            before, move = flight.job, await step(flight)
            if isinstance(move, CheckAgain):
                self._check_again(flight, loop_now() + move.seconds)
                if move.frees:
                    self._changed.set()
                return
            if move.to is State.SUBMITTING and not self._may_leave(flight):
                return  # the intent is not written, so nothing may leave
            after = await self._ledger.record(before, move)
            self._flights.update(flight, after)
            await self._note(before, after, move)
            await self._buy_again(flight)
            if flight.job.state is State.PENDING:
                self.wake()
                return

    def _may_leave(self, flight: Flight) -> bool:
        """Return whether a job that is ready may be submitted still: much can have happened since its turn came."""
        if self.halted:
            return False
        if self._pace.budget.is_passed:  # a bill was higher than its estimate, or the limit was lowered
            self._pace.budget.release(flight.job.id)
            self.wake()
            return False
        return True

    def _stays(self, state: State) -> bool:
        """Return whether the run ends with the job where it is."""
        if self.halted is None:
            return False
        if state is State.SUBMITTING:  # between intent and request: its step takes the intent back
            return False
        return state is State.PENDING or is_left(state, self.halted.drain, late=False)

    async def _note(self, before: Job, after: Job, move: Move) -> None:
        self._release_held()
        held = self._pace.saw(before, after, move, self._flights.running, loop_now())
        breaker = self._pace.circuit_breaker
        if breaker.too_uncertain and self.halted is None and not self._searching:
            for found in await self.search():
                self.take(found.job)
            if breaker.too_uncertain:
                self.halt("uncertain", f"{breaker.uncertain} submissions {_UNDECIDED}: {after.message}")
        if breaker.too_many_failures:
            self.halt("failures", f"{breaker.failures_in_a_row} jobs failed in a row; the last: {after.message}")
        self.check_outage()
        self._changed.set()
        if held is not None:
            window = int(self._pace.window.size)
            await self._ledger.say(
                Held(self._clock.now(), after.message or "", round(held, 3), window, reached=not move.unreached)
            )

    def _release_held(self) -> None:
        """Go on with the jobs that waited until something was known of latencies."""
        if not self._pace.warmup.ends():
            return
        now = loop_now()
        for flight in self._flights:
            if flight.timer and (seconds := self._steps.release(flight)) is not None:
                self._check_again(flight, now + seconds)

    async def resubmit(self) -> bool:
        """Queue lost submissions again, where the user's settings say so; return whether there were any."""
        if self._policy.retry.uncertain != "resubmit":
            return False
        moved = False
        for job in await self._ledger.under_way(State.UNCERTAIN):
            if again := bought_again(job, self._policy.retry):
                with suppress(Overtaken):  # by the user, from another terminal
                    await self._ledger.record(job, again)
                    moved = True
        return moved

    async def _buy_again(self, flight: Flight) -> None:
        """Return a job that has just settled to the queue, if the user's settings say so."""
        if flight.job.state is State.UNCERTAIN and self._find_lost:  # it is looked for first
            return
        if again := bought_again(flight.job, self._policy.retry):
            self._flights.update(flight, await self._ledger.record(flight.job, again))
