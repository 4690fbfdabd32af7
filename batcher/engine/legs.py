"""One coroutine for each state a job can be driven from: it acts, and gives the Move that follows, or says when."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, assert_never

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from batcher.clock import Chance, Clock, time_of_day
from batcher.engine import rules
from batcher.engine.pace import Pace
from batcher.events import Waiting
from batcher.hosting.inline import NotUsable, body
from batcher.job import SEED, Job, Kind, Move, Output, State
from batcher.outputs.download import FULL_HANDED, Fetched, fetch
from batcher.outputs.failures import Dead, Failed, Interrupted, Never, Wrong
from batcher.outputs.sidecar import Origin, sidecar, sidecar_file
from batcher.outputs.store import Store
from batcher.pacing.patience import backoff
from batcher.provider.calls import Answer, Call, Wire, WireFault
from batcher.provider.provider import Offer, Provider, Reference
from batcher.provider.replies import (
    Accepted,
    Broke,
    Broken,
    Cancelled,
    Completed,
    Finished,
    Forbidden,
    Misdirected,
    Missing,
    PollReply,
    Queued,
    Unauthorized,
    Unavailable,
    Unknown,
    Working,
)
from batcher.settings import Retry

_AGREE: Final = 1.0
"""Seconds that two clocks may differ by."""
_SILENT: Final = 5.0
"""Seconds without an answer that count as the API's silence: they are not charged to a file that is waited for."""
_TRIES: Final = 12
"""Of one look, with growing waits between them: four minutes."""
_AMISS_AGAIN: Final = 60.0
"""Seconds, at most, until a job is looked at again of which a look brought nothing."""
_MISDIRECTED: Final = 3
"""Jobs whose answers are about other requests, before as many were answered rightly: then something between here and
the API mixes answers up."""
_SERVER_TROUBLE: Final = 500
DOWNLOADS: Final = 16
SPARE: Final = 2 * 2**20
"""Bytes of the disk that are left to the ledger and the log."""


class Leave(Exception):
    """The run cannot go on, and the job is left as it is."""


@dataclass(frozen=True, slots=True)
class Later:
    """The job stays in its state, and is gone on with after so many seconds."""

    seconds: float
    frees: bool = False
    """It holds no place in the window any more: the server has ended it, and only its outputs are late."""


@dataclass(slots=True)
class _Watched:
    """What is kept of a running job between two looks."""

    watch: rules.Watch
    begun: float
    """Loop seconds."""
    age: float
    """Seconds since it was accepted, when this was begun."""
    fresh: bool
    """It was accepted by this start, so that its age is known whatever the wall's clock does."""
    tells: bool
    """What it took can be learned: its age is known, and nothing went by unheard."""
    first: bool = True
    """The next look is its first."""
    held: bool = False
    """It waits for what others tell."""
    before: float = 0.0
    """The age at which it was last seen at work."""
    amiss: str = ""
    """What the last look was answered, where that says nothing of how far it has come."""
    tries: int = 0
    """Such looks, one after the other."""

    def age_at(self, now: float) -> float:
        """Give the seconds since it was accepted."""
        return self.age + now - self.begun


@dataclass(frozen=True, slots=True)
class Tools:
    """What the legs work with."""

    wire: Wire
    api: Provider
    offer: Callable[[str], Awaitable[Offer]]
    """A model's id, as the manifest names it -> the model as the provider offers it."""
    store: Store
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


class Head(Protocol):
    """Whom the legs tell."""

    def halt(self, reason: str, message: str) -> None:
        """Take in that the run cannot go on."""
        ...

    def hear(self) -> None:
        """Take in that the server gave something useful, or not."""
        ...

    def warn(self, message: str) -> None:
        """Take in what the user should know."""
        ...

    def waits(self, event: Waiting) -> None:
        """Take in what a job waits for, or that it does no more."""
        ...


class Legs:
    """Acts for the engine, its head."""

    def __init__(self, tools: Tools, pace: Pace, retry: Retry, head: Head) -> None:
        self._heard = head.hear
        self._warn = head.warn
        self._waits = head.waits
        self._tools = tools
        self._pace = pace
        self._retry = retry
        self._halt = head.halt
        self._bodies: dict[str, bytes] = {}
        self._watched: dict[str, _Watched] = {}
        self._accepted: set[str] = set()
        """By this start, and not watched yet."""
        self.late: set[str] = set()
        """Jobs that hold no place in the window, for only their outputs are late."""
        self._misdirected: set[str] = set()
        """The first requests of which every answer was about another, over fresh connections too."""
        self._answered: set[str] = set()
        """The first requests that were answered rightly."""
        self._told_misdirected = False
        self._placing: dict[str, str] = {}
        """Name without extension -> the job whose file it is, which the ledger does not know yet."""
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._stop = asyncio.Event()
        self._usual_bytes = 0.0
        """Of a job's outputs, those of late counting most."""
        self._unheard = 0.0
        """Seconds of the loop's clock."""
        self.by_state: dict[State, Callable[[Job], Awaitable[Move | Later]]] = {
            State.PENDING: self.prepare,
            State.SUBMITTING: self.submit,
            State.RUNNING: self.watch,
            State.FETCHING: self.fetch,
        }

    def obey(self, retry: Retry) -> None:
        """Go by other rules from now on."""
        self._retry = retry

    def go_on(self) -> None:
        """Send again, after a stop that is taken back."""
        self._stop.clear()

    def stop(self) -> None:
        """Send nothing more: a request that is not on its way does not leave."""
        self._stop.set()

    def stood_still(self, seconds: float) -> None:
        """Charge no job for a time in which nothing could be heard."""
        self._unheard += seconds
        for watched in self._watched.values():
            watched.tells = False
        self._pace.patience.shift(seconds)
        self._tools.wire.stood_still()

    async def reach(self) -> None:
        """Ask the server for anything, over fresh connections, until it answers."""
        await self._tools.wire.refresh()
        tries = 0
        while isinstance(answer := await self._tools.wire.send(self._tools.api.probe()), WireFault):
            self._strained(answer.message)
            await asyncio.sleep(backoff(tries, self._tools.chance))
            tries += 1

    def scarce(self, in_flight: int) -> str | None:
        """Say that the disk has no room for more than what is in flight; None where it has, as far as can be told."""
        needed = SPARE + int(in_flight * self._usual_bytes * 1.25)
        free = self._tools.store.free()
        if free >= needed:
            return None
        return f"{free / 1e6:,.1f} MB are free where results go, and what is in flight may take {needed / 1e6:,.1f} MB"

    def _now(self) -> float:
        """Give the loop's time, but for times in which nothing could be heard."""
        return _loop_now() - self._unheard

    async def prepare(self, job: Job) -> Move:
        """Build the request while nothing is at stake; its Move is the intent to send it."""
        seed = await self._own_seed(job)
        try:
            if job.spec.images:
                self._bodies[job.id] = await self._read_images(job, seed)
            else:
                self._bodies[job.id] = body(job.spec, self._tools.root, seed)
        except NotUsable as why:
            return Move(State.FAILED, Kind.SOURCE, str(why))
        if delay := self._pace.rate.delay(_loop_now()):
            with suppress(TimeoutError):  # its turn has come; a stop ends the wait
                await asyncio.wait_for(self._stop.wait(), delay)
        return Move(State.SUBMITTING, seed=seed)

    async def _own_seed(self, job: Job) -> int | None:
        """Draw a seed for this attempt alone, by which its request is found in the vendor's list should it be lost.

        None where there is no such list, the model takes no seed, or the manifest names one.
        """
        if self._tools.api.history is None or SEED in job.spec.inputs:
            return None
        seeds = (await self._tools.offer(job.spec.model)).seeds
        return None if seeds is None else self._tools.chance.choice(seeds)

    async def _read_images(self, job: Job, seed: int | None) -> bytes:
        """Build a request with local images. That too many files are open says nothing of these, and passes."""
        for tries in range(_TRIES):
            try:
                return await asyncio.to_thread(body, job.spec, self._tools.root, seed)
            except OSError as error:
                if error.errno not in FULL_HANDED:
                    raise
                await asyncio.sleep(backoff(tries, self._tools.chance))
        return await asyncio.to_thread(body, job.spec, self._tools.root, seed)

    def drop(self, job: Job) -> None:
        """Forget the request that was prepared: it does not leave now."""
        self._bodies.pop(job.id, None)

    async def submit(self, job: Job) -> Move:
        """Send it, once; the intent is on disk."""
        request = self._bodies.pop(job.id)
        if self._stop.is_set():
            return Move(State.PENDING, message="not sent: the run was stopping")
        model_id = (await self._tools.offer(job.spec.model)).model_id
        call = self._tools.api.submit(model_id, request, self._retry.patience)
        reply = self._tools.api.read_submit(await self._tools.wire.send(call), self._tools.clock.now(), model_id)
        proven = self._pace.caution.accepted > 0
        match reply:
            case Accepted():
                self._accepted.add(job.id)
            case Unauthorized(message):
                self._halt("token", message)
            case Forbidden(message) if not proven:
                self._halt("token", message)
            case Broke(message):
                self._halt("balance", message)
        wait = backoff(self._pace.window.holds + self._pace.window.silences, self._tools.chance)
        return rules.after_submit(reply, wait, proven=proven)

    async def watch(self, job: Job) -> Move | Later:
        """Look at it if its time has come; say when it is to be gone on with."""
        watched = self._watched.get(job.id)
        if watched is None:
            watched = self._watched[job.id] = self._begin_to_watch(job)
            return self._hold(job, watched)
        if watched.held:
            watched.held = False
            self._pace.scouts.turn(job.id)
            return self._next_look(job, watched)
        move = await self._look_at(job, watched)
        if move is None:
            later = self._await_outputs(job, watched) or self._hold(job, watched)
            if watched.amiss:  # what was answered says nothing of how long it may still take
                later = replace(later, seconds=min(later.seconds, _AMISS_AGAIN))
            self._tell_what_is_amiss(job, watched, later.seconds)
            return later
        self.left(job)
        return move

    def _tell_what_is_amiss(self, job: Job, watched: _Watched, seconds: float) -> None:
        """Let it be seen that looks at a job bring nothing, from the second on; and when they do again."""
        if not watched.amiss:
            if watched.tries > 1:
                self._waits(Waiting(self._tools.clock.now(), job.id, job.spec.name, job.request_id, 0, ""))
            watched.tries = 0
            return
        watched.tries += 1
        if watched.tries > 1:
            watch, now = watched.watch, self._now()
            if watch.empty_since is not None:
                what, ends = "its outputs", watch.empty_since + rules.LATE_OUTPUTS
            elif watch.missing_since is not None:
                what, ends = "word of its request", watch.missing_since + rules.GONE_AFTER
            else:
                what, ends = "word of its request", watch.moved_at + self._retry.job_timeout
            self._tell_wait(job, what, watched.tries, watched.amiss, seconds, ends - now)

    def _tell_wait(self, job: Job, what: str, tries: int, answer: str, seconds: float, left: float | None) -> None:
        """Let it be seen what a job waits for, but where the API answers nobody: that is seen as its silence.

        `seconds` until the next try; `left`: until it is given up, None where that is not known.
        """
        silent = self._pace.patience.since
        if silent is not None and _loop_now() - silent > _SILENT:
            return
        now = self._tools.clock.now()
        again, until = now + seconds, None if left is None else now + max(left, seconds)
        when = f"again at {time_of_day(again)}"
        if until is not None:
            when += f", given up at {time_of_day(until)}"
        message = f"waits for {what}: try {tries} brought {answer}; {when}"
        self._waits(Waiting(now, job.id, job.spec.name, job.request_id, tries, message, again, until))

    def _await_outputs(self, job: Job, watched: _Watched) -> Later | None:
        """Return when a job is looked at again that is completed and has no outputs yet; None where it is no such job.

        The server is done with it, so it holds no place in the window: up to as many jobs as may fail in a row, for a
        server that delivers nothing must not be given the whole manifest.
        """
        since, before = watched.watch.empty_since, len(self.late)
        if since is None:
            self.late.discard(job.id)
            return None
        watched.tells = False
        self._pace.left(job)
        if before < self._retry.max_failures:
            self.late.add(job.id)
        return Later(rules.next_look_for_outputs(self._now() - since), frees=len(self.late) > before)

    def _begin_to_watch(self, job: Job) -> _Watched:
        fresh, now = job.id in self._accepted, self._now()
        self._accepted.discard(job.id)
        age = 0.0 if job.running_since is None else self._tools.clock.now() - job.running_since
        known = fresh or (job.running_since is not None and age >= 0)
        direct = self._tools.api.traits.result_tells_state
        watch = rules.Watch(since=now, moved_at=now, direct=direct, ask_result=direct)
        return _Watched(watch, _loop_now(), 0.0 if fresh else max(0.0, age), fresh=fresh, tells=known)

    def left(self, job: Job) -> None:
        """Look at a job no more."""
        self._accepted.discard(job.id)
        self.late.discard(job.id)
        for output in job.outputs:
            if self._placing.get(stem := _stem(job, output)) == job.id:
                del self._placing[stem]
        if self._watched.pop(job.id, None):
            self._pace.left(job)

    def _hold(self, job: Job, watched: _Watched) -> Later:
        """Say when the next look is; where nothing is known of latencies, that may be after others have told."""
        wait = self._pace.scouts.hold(job.id)
        if wait is None:
            return self._next_look(job, watched)
        watched.held = True
        return Later(wait)

    def _next_look(self, job: Job, watched: _Watched) -> Later:
        first, watched.first = watched.first, False
        return Later(self._pace.next_look(job, watched.age_at(_loop_now()), first=first))

    async def _look_at(self, job: Job, watched: _Watched) -> Move | None:
        reply = await self._look(job, watched.watch)
        if isinstance(reply, Completed) and not watched.watch.ask_result:
            watched.watch = watched.watch.seen(reply, self._now())
            result = await self._look(job, watched.watch)
            reply = rules.with_words(reply, result, watched.watch, self._now())
        if isinstance(reply, Queued | Working):
            watched.before = watched.age_at(_loop_now())
            self._pace.saw_place(job, watched.before, waits=isinstance(reply, Queued))
        watched.watch = watched.watch.seen(reply, self._now())
        watched.amiss = _amiss(reply)
        if isinstance(reply, Unavailable | Misdirected) and rules.is_overdue(watched.watch, self._retry, self._now()):
            return rules.unreadable(reply) if await self._api_answers() else None
        move = rules.after_poll(reply, watched.watch, self._retry, self._now())
        if move is not None and move.to is State.FETCHING:
            move = replace(move, took=self._learn(job, watched, move.completed_at))
            if isinstance(reply, Finished) and reply.left_out:
                of = len(reply.urls) + reply.left_out
                self._warn(f"job {job.id}: its result names {of:,} outputs; the first {len(reply.urls):,} are fetched")
            if move.completed_at is None:
                return replace(move, completed_at=self._tools.clock.now())
        return move

    async def _api_answers(self) -> bool:
        """Return whether the API answers at all, so that what it does not say of one request is not its silence."""
        await self._turn()
        answer = await self._tools.wire.send(self._tools.api.probe())
        return isinstance(answer, Answer) and answer.status < _SERVER_TROUBLE

    def _learn(self, job: Job, watched: _Watched, finished: float | None) -> float | None:
        """Take in what a job took, by the server's stamp where it lies between what was seen here, and return it.

        Of a job that an earlier start sent, and that had ended before anyone looked, there is only the stamp: a clock
        that is hours off would not be noticed.
        """
        if not watched.tells or not (watched.fresh or watched.before):
            return None
        before, age, since = watched.before, watched.age_at(_loop_now()), job.running_since or 0.0
        if finished is not None and since + before - _AGREE <= finished <= since + age + _AGREE:
            seconds = max(0.0, finished - since)
            self._pace.learn(job, seconds)
            return seconds
        self._pace.learn(job, age, before)
        return age

    async def _look(self, job: Job, watch: rules.Watch) -> PollReply:
        request, api = await self._tools.reference(job), self._tools.api
        call = api.result(request, self._tools.store.parts) if watch.ask_result else api.status(request)
        return await self._ask(call, job, request)

    async def _ask(self, call: Call, job: Job, request: Reference) -> PollReply:
        """Read from the API until it says something of the request, or for some minutes.

        What it must not be asked on for halts the run. What is about another request is asked for anew, over a
        connection of its own.
        """

        def tell(state: RetryCallState) -> None:
            reply: PollReply | None = state.outcome.result() if state.outcome else None
            if reply and state.next_action:
                tries = state.attempt_number + 1  # one was made before
                self._tell_wait(job, "word of its request", tries, _amiss(reply), state.next_action.sleep, None)

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
                stop=stop_after_attempt(_TRIES),
                before_sleep=tell,
                retry_error_callback=_last_reply,
            )(again)
        if isinstance(reply, Unauthorized | Forbidden):
            self._halt("token", reply.message)
            raise Leave
        return reply

    async def _read(self, call: Call, request: Reference) -> PollReply:
        await self._turn()
        read = self._tools.api.read_result if call.of_result else self._tools.api.read_status
        reply = read(await self._tools.wire.send(call), self._tools.clock.now(), request)
        request_id = request.request_id
        match reply:
            case Unavailable():
                self._strained(reply.message)
            case Misdirected(named):
                self._strained(f"an answer about request {named} came, where {request_id} was asked about")
                self._beware(request_id, named, asked_anew=call.fresh)
            case _:
                if len(self._answered) < _MISDIRECTED:
                    self._answered.add(request_id)
                self._misdirected.discard(request_id)
                self._pace.patience.eased()
                self._heard()
        return reply

    def _beware(self, request_id: str, named: str, *, asked_anew: bool) -> None:
        """Tell the user, once, that answers are mixed up; stop where those of the first jobs all are."""
        if not self._told_misdirected:
            self._told_misdirected = True
            self._warn(
                f"an answer about request {named} came, where {request_id} was asked about: it is ignored, and asked "
                "for again over a fresh connection; is there a proxy or a cache on the way to the API?"
            )
        if asked_anew and len(self._answered) < _MISDIRECTED and request_id not in self._answered:
            self._misdirected.add(request_id)
            if len(self._misdirected) >= _MISDIRECTED:
                words = f"the answers about {_MISDIRECTED} of the first requests were about others, such as {named}"
                self._halt("unreachable", f"{words}: a proxy or a cache on the way to the API mixes them up")

    def _wait_to_read(self, state: RetryCallState) -> float:
        return self._wait_after(state.outcome.result() if state.outcome else None, state.attempt_number)

    def _wait_after(self, reply: PollReply | None, tries: int) -> float:
        named = reply.retry_after if isinstance(reply, Unavailable) else None
        return max(named or 0.0, backoff(tries, self._tools.chance))

    async def fetch(self, job: Job) -> Move:
        """Bring every output home, whole, then write the sidecars. One that fails keeps no other from coming."""
        placed: dict[int, Output] = {}
        given_up: dict[int, Move] = {}
        troubles: dict[int, rules.Trouble] = {}
        of_result = rules.Trouble()
        stale, tries = _needs_result(job), 0
        while True:
            if stale:
                asked_at = self._now()
                renewed = await self._renew(job)
                now = self._now()
                match renewed:
                    case Job():
                        job, stale, of_result = renewed, False, rules.Trouble()
                        silent = now - asked_at if now - asked_at > _SILENT else 0.0
                        troubles = {index: one.renewed(now, silent) for index, one in troubles.items()}
                    case Move():
                        return replace(renewed, outputs=_in_order(placed))
                    case _:
                        of_result = _troubled(of_result, renewed, now, asked_anew=True)
                        if move := await self._no_result(of_result, renewed):
                            return replace(move, outputs=_in_order(placed))
                        tries = await self._until_the_next_try(job, "its result", tries, of_result, renewed.message)
                        continue
            to_come = [one for one in job.outputs if one.index not in placed.keys() | given_up.keys()]
            if not to_come:
                break
            refresh, trouble, answer = False, rules.Trouble(), ""
            for output in to_come:
                got = await self._try(job, output)
                if isinstance(got, Output):
                    placed[got.index], tries = got, 0
                    troubles.pop(got.index, None)
                    continue
                now, timeout = self._now(), self._retry.fetch_timeout
                trouble = _troubled(troubles.get(output.index, rules.Trouble()), got, now)
                troubles[output.index], answer = trouble, got.message
                if move := rules.given_up(trouble, got, now, timeout):
                    given_up[output.index] = move
                else:
                    refresh = refresh or trouble.to_refresh(now, timeout)
            if len(placed) + len(given_up) < len(job.outputs):
                stale = refresh or _needs_result(job)
                if not refresh:
                    tries = await self._until_the_next_try(job, "its output", tries, trouble, answer)
        for move in given_up.values():
            return replace(move, outputs=_in_order(placed))
        return await self._finish(job, list(_in_order(placed)))

    async def _until_the_next_try(self, job: Job, what: str, tries: int, trouble: rules.Trouble, answer: str) -> int:
        """Wait as long as so many tries in vain ask for, and let it be seen; return how many they are now."""
        seconds, now = backoff(tries, self._tools.chance), self._now()
        if tries:  # a first one is soon over
            left = (now if trouble.since is None else trouble.since) + self._retry.fetch_timeout - now
            self._tell_wait(job, what, tries + 1, answer, seconds, left)
        await asyncio.sleep(seconds)
        return tries + 1

    async def _no_result(self, trouble: rules.Trouble, got: Dead | Interrupted) -> Move | None:
        """Return what becomes of a job whose result cannot be asked for again; None: it is tried on.

        Where the API answers nobody, that is its silence, which is waited for under `patience`.
        """
        now, timeout = self._now(), self._retry.fetch_timeout
        if isinstance(got, Interrupted) and trouble.is_late(now, timeout) and not await self._api_answers():
            return None
        return rules.given_up(trouble, got, now, timeout, asked_anew=True)

    async def _finish(self, job: Job, placed: list[Output]) -> Move:
        size = sum(output.bytes or 0 for output in placed)
        self._usual_bytes += (size - self._usual_bytes) * (0.1 if self._usual_bytes else 1.0)
        if len(placed) > 1:
            await asyncio.to_thread(self._write_sidecars, job, placed)
        return Move(State.DONE, outputs=tuple(placed), billed_usd=job.billed_usd)

    def _write_sidecars(self, job: Job, placed: Sequence[Output]) -> None:
        for output in placed:
            content = sidecar(job, output, len(placed), self._tools.origin)
            self._tools.store.write_sidecar(sidecar_file(output.file or ""), content, f"{job.id}-{output.index}.json")

    async def _try(self, job: Job, output: Output) -> Output | Failed:
        """Fetch an output, and place it; where it is the only one, with its sidecar."""
        slow_after = self._retry.fetch_timeout
        async with self._downloads:  # not held while a dead URL is waited for
            stem = _stem(job, output)
            store = self._tools.store

            def place(got: Fetched, stem: str) -> Output:
                file = f"{stem}.{got.media.extension}"
                placed = got.output(output, file, self._tools.clock.now())
                said = sidecar(job, placed, 1, self._tools.origin) if len(job.outputs) == 1 else None
                store.place(got.part, file, job.id, said)
                return placed

            def place_if_free(got: Fetched) -> Output | Fetched:
                if self._placing.setdefault(stem, job.id) != job.id or store.taken(f"{stem}.{got.media.extension}"):
                    return got
                return place(got, stem)

            key = f"{job.id}-{output.index}"
            got = await fetch(output.url, self._tools.wire, store, key, place_if_free, slow_after)
            if isinstance(got, Fetched):  # the ledger knows whose it is, or a job at work that it will be
                mine = self._placing[stem] == job.id
                name = await self._tools.make_room(stem, job.id) if mine else f"{stem}~{job.id}"
                try:
                    return await asyncio.to_thread(place, got, name)
                except OSError as error:
                    if error.errno not in FULL_HANDED:
                        raise
                    return Interrupted(str(error))
            return got

    async def _renew(self, job: Job) -> Job | Move | Dead | Interrupted:
        """Ask for the result again: its URLs may be fresh."""
        request = await self._tools.reference(job)
        reply = await self._ask(self._tools.api.result(request, self._tools.store.parts), job, request)
        match reply:
            case Finished(urls) if len(urls) >= max(1, len(job.outputs)):
                fresh = tuple(Output(index, url) for index, url in enumerate(urls, start=1))
                billed = job.billed_usd if reply.billed_usd is None else reply.billed_usd
                return replace(job, outputs=fresh, billed_usd=billed)
            case Finished() | Completed():
                return Dead("the result has no output for it")
            case Broken() | Cancelled():
                return Move(State.FAILED, Kind.EXPIRED, "the server has no output for this request any more")
            case Missing(message):
                return Dead(message)
            case _:
                return Interrupted(f"the result cannot be had: {_words_of(reply)}")

    def _strained(self, why: str) -> None:
        now = _loop_now()
        self._pace.patience.strained(now, why)
        self._heard()

    async def _turn(self) -> None:
        """Wait for a turn under `requests_per_second`."""
        delay = self._pace.rate.delay(_loop_now())
        if delay:
            await asyncio.sleep(delay)


def _troubled(trouble: rules.Trouble, got: Failed, now: float, *, asked_anew: bool = False) -> rules.Trouble:
    """Return the trouble of an output with one more failure of this form."""
    match got:
        case Dead():
            return replace(trouble, refreshed=trouble.refreshed or asked_anew).dead(now)
        case Wrong(digest, _):
            return trouble.wrong(digest, now)
        case Interrupted() | Never():
            return trouble.interrupted(now)
        case _:
            assert_never(got)


def _words_of(reply: PollReply) -> str:
    match reply:
        case Unavailable(message):
            return message
        case Misdirected(named):
            return f"an answer about request {named}"
        case _:
            return f"the request is said to be {type(reply).__name__.lower()}"


def _amiss(reply: PollReply) -> str:
    """Return what a look was answered that says nothing of how far the job has come; nothing where it says so."""
    match reply:
        case Missing(message):
            return message
        case Unavailable() | Misdirected() | Unknown():
            return _words_of(reply)
        case Completed() | Finished(()):
            return "that it is completed, without outputs"
        case _:
            return ""


def _last_reply(state: RetryCallState) -> PollReply:
    """Return what came last, once the tries are over."""
    outcome = state.outcome
    reply: PollReply = outcome.result() if outcome else Unavailable("no answer")
    return reply


def _in_order(placed: Mapping[int, Output]) -> tuple[Output, ...]:
    return tuple(placed[index] for index in sorted(placed))


def _stem(job: Job, output: Output) -> str:
    """Give the name of an output's file in the run directory, without extension."""
    return f"files/{job.spec.name}" if len(job.outputs) == 1 else f"files/{job.spec.name}-{output.index}"


def _needs_result(job: Job) -> bool:
    """Say whether a job's URLs are not known, or are what the ledger keeps of a data URI: all but its data."""
    return not job.outputs or any(one.url.startswith("data:") and one.url.endswith(",") for one in job.outputs)


def _loop_now() -> float:
    return asyncio.get_running_loop().time()
