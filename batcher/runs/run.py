"""One run directory, held: joins the rooms, and closes them in reverse. The CLI and programs use nothing below it."""

import asyncio
import json
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from batcher.catalog import Model, bundled, offered, read_entry
from batcher.engine.context import Tools
from batcher.engine.deadline import Deadline
from batcher.engine.engine import Engine
from batcher.engine.found import Found
from batcher.engine.pace import Pace
from batcher.engine.shutdown import HALTS, Drain, Halt
from batcher.engine.suspend_detector import SuspendDetector
from batcher.errors import (
    EXIT_OK,
    EXIT_SETTLED,
    SIGNAL_BASE,
    BatcherError,
    Stopped,
    WrongUse,
)
from batcher.events import Ended, Listener, Noted, Started, Warned
from batcher.hosting.looked_at import Facts
from batcher.job import IN_FLIGHT, SETTLED, Spec, State
from batcher.ledger import asks
from batcher.ledger.ballast import Ballast
from batcher.ledger.enrolment import Choice, Enrolled, enrol
from batcher.ledger.ledger import Ledger
from batcher.ledger.place import warnings
from batcher.ledger.reader import Reader
from batcher.ledger.rows import dump
from batcher.ledger.sql import statements
from batcher.outputs.sidecar import Origin
from batcher.outputs.store import Store
from batcher.pacing.budget import kind_of
from batcher.pacing.caution import Caution
from batcher.pacing.patience import Patience
from batcher.pacing.polling import Usual
from batcher.pacing.window import Rate, Speed, Window
from batcher.plain import command
from batcher.provider import PROVIDERS
from batcher.provider.calls import Wire
from batcher.provider.provider import Provider
from batcher.runs.catalogue import look_up
from batcher.runs.copies import Copies
from batcher.runs.lost_requests import ONCE_MORE_AFTER, LostRequests
from batcher.runs.offers import Offers
from batcher.runs.parts import Parts
from batcher.runs.purse import Purse
from batcher.runs.requests import Requests
from batcher.settings import SANDBOX, Destination, Endpoint, Policy
from batcher.show.status import status
from batcher.show.words import left_behind

T = TypeVar("T")
_LOOK: Final = 0.2
_LAST_ANSWERS: Final = 1.0
_POLICY: Final = TypeAdapter(Policy)
Connect = Callable[[], Awaitable[tuple[Endpoint, Wire]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int
    stopped: Stopped | None


class Run:
    """A run directory that this process holds. Made by `open_run`."""

    def __init__(self, out: Path, ledger: Ledger, owner: Destination, connect: Connect, parts: Parts) -> None:
        self.out = out
        self.owner = owner
        """Whose results it holds."""
        self.secret = ""
        """The token, once there is a connection: the log takes it out of what it writes."""
        self.ledger = ledger
        self._connect = connect
        self._wire: Wire | None = None
        self.api: Provider = PROVIDERS[owner.vendor]
        """The protocol that is spoken."""
        self.parts = parts
        self.store = Store(out)
        self.purse = Purse(ledger)
        """What the ledger says of money."""
        self.engine: Engine | None = None
        self.copies = Copies(self)
        """Whether its ledger is an older copy of one that went on."""
        self.requests = Requests(self)
        """What the user can ask of it, from this process or another."""
        self.policy = Policy()
        self._signals = 0
        self._signalled = asyncio.Event()
        """A signal has come."""
        self._search_broken_off = False
        """A signal came while lost submissions were looked for."""
        self._early: Halt | None = None
        self._would_cost = 0.0
        """In USD, with all that is left, where the money was not enough for it."""

    async def connect(self) -> Wire:
        """Find the way to the API, starting the sandbox for a rehearsal. Raises TokenMissing, WrongRun."""
        if self._wire is None:
            endpoint, self._wire = await self._connect()
            self.secret = "" if endpoint.provider == SANDBOX else endpoint.token.reveal()
        return self._wire

    async def at_rest(self) -> bool:
        """Say whether there is nothing to do."""
        rows = await self.ledger.ask("states")
        return not any(
            State(row["state"]) not in SETTLED
            and (row["state"] != State.PENDING or (row["listed"] and row["selected"]))
            for row in rows
        )

    async def has_work(self, policy: Policy) -> bool:
        """Return whether there is something to do.

        What is uncertain is, where it is to be submitted again, or looked for in the vendor's list of past requests.
        """
        resubmits = policy.retry.uncertain == "resubmit" and (await self._states()).get(State.UNCERTAIN)
        return bool(resubmits) or await self._may_find() or not await self.at_rest()

    async def _may_find(self) -> bool:
        """Return whether there are lost submissions, and a list in which they may be found."""
        rows = await self.ledger.ask("states") if self.api.history else []
        return any(row["state"] == State.UNCERTAIN for row in rows)

    def listen(self, listener: Listener) -> None:
        """Tell this listener of every event from now on."""
        self.ledger.listen(listener)

    # Before the work.

    async def meta(self) -> dict[str, Any]:
        """Give what the ledger knows of this run."""
        return await self.ledger.meta()

    async def note(self, facts: Mapping[str, object]) -> None:
        """Note facts of this run in its ledger."""
        await self.ledger.put_meta(facts)

    async def model(self, model_id: str) -> Model:
        """Return a model as the provider offers it: bundled, known to this run, or looked up in its catalogue once.

        Raises WrongUse where the provider does not offer it.
        """
        if found := offered(model_id, self.api.name):
            return found
        if model_id in bundled():
            raise WrongUse(f"{self.api.traits.title} does not offer {model_id}")
        if known := (await self._known_models()).get(model_id):
            return known
        wire = await self.connect()
        model = await look_up(wire, self.api, model_id)
        put = statements("moves.sql")["put_model"]
        entry = {"id": model_id, "entry": json.dumps(model.entry)}
        await self.ledger.transact(lambda connection: connection.execute(put, entry).rowcount)
        return model

    async def _known_models(self) -> dict[str, Model]:
        """Return the models that this run looked up in the API's catalogue, by id."""
        return {row["id"]: read_entry(json.loads(row["entry"])) for row in await self.ledger.ask("models")}

    async def has_taken(self, stands_for: str) -> bool:
        """Say whether the jobs listed now are those of this manifest, and its local images are as they were."""
        meta = await self.meta()
        if meta.get("taken") != stands_for or meta.get("rejected") or meta.get("unmade"):
            return False  # what could not be used may have been mended
        return await asyncio.to_thread(_unchanged, self.out)

    async def enrol(
        self,
        jobs: Iterable[tuple[Spec, bool]],
        fresh_images: Iterable[tuple[str, Facts]],
        choice: Choice,
        *,
        sure: bool,
        stands_for: str = "",
        facts: Callable[[], Mapping[str, object]] = dict,
    ) -> Enrolled:
        """Take a manifest's jobs in, all or none. Raises ManifestFaulty, TooManyUnlisted.

        `stands_for` is remembered with them: the same need not be taken in again. So is what `facts` gives once they
        are read: jobs without the limits that they came with would be bought without them.
        """
        now = self.parts.clock.now()
        sql = statements("moves.sql")

        def work(connection: sqlite3.Connection) -> Enrolled:
            enrolled = enrol(connection, jobs, choice, now, sure=sure)
            names = ("path", "size", "mtime_ns", "facts")
            rows = (dict(zip(names, (path, *facts), strict=True)) for path, facts in fresh_images)
            connection.executemany(sql["put_image"], rows)
            noted = {"taken": stands_for, **facts()}
            connection.executemany(
                sql["put_meta"], [{"key": key, "value": dump(value)} for key, value in noted.items()]
            )
            return enrolled

        return await self.ledger.transact(work, bound=False)

    # The work.

    async def work(self, policy: Policy) -> Outcome:
        """Drive every selected job until it has settled, or something stops the run."""
        if refused := await self._refused(policy):
            return refused
        await asyncio.to_thread(self.store.prepare)
        ballast = self.ledger.ballast = Ballast(self.out)
        meta = await self.meta()
        states = await self._states()
        await self.ledger.say(await self._started(policy, str(meta.get("name")), states))
        halt = None
        if await self.has_work(policy):
            await asyncio.to_thread(ballast.load)
            halt = await self._drive(policy, meta)
            ballast.drop()
        if halt and halt.reason == "budget" and self.engine:
            estimate = await self.purse.left()
            self._would_cost = self.engine.budget.spoken_for + estimate * self.engine.budget.dearest
        outcome = self._outcome(await self._states(), await self._others_at_work(), halt)
        await self._close_books(meta, outcome)
        return outcome

    async def _started(self, policy: Policy, name: str, states: Mapping[str, int]) -> Started:
        """Say what this start begins with."""
        await self.note({"started_at": self.parts.clock.now(), "ended": False})
        money = await self.ledger.ask("money")
        to_settle = (await self.ledger.ask("unsettled_estimate"))[0]
        return Started(
            at=self.parts.clock.now(),
            name=name,
            provider=self.owner.provider,
            vendor=self.owner.vendor,
            states=states,
            concurrency=policy.limits.concurrency,
            billed_usd=round(sum(row["billed"] for row in money), 6),
            left_usd=round(to_settle["usd"], 6) if to_settle["usd"] or not to_settle["jobs"] else None,
            limit_usd=policy.limits.max_cost_usd,
        )

    async def _refused(self, policy: Policy) -> Outcome | None:
        """Refuse to go on with an older copy, or with what the user has paused."""
        if moved := await self.copies.left_behind():
            return await self.refuse("moved", moved)
        if not await self.has_work(policy):
            return None
        if (await self.meta()).get("paused"):
            return await self.refuse("paused", "the run is paused; `resume` lifts that")
        for warning in warnings(self.out):
            await self.warn(warning)
        return None

    async def _drive(self, policy: Policy, meta: Mapping[str, Any]) -> Halt | None:
        tools = self.tools(await self.connect(), meta)
        lost = self._lost_requests(tools)
        if lost and not self._early:
            await self._found(lost)
        pace = await self.pace(policy)
        find_lost = partial(self._found, lost) if lost else None
        engine = self.engine = Engine(self.ledger, pace, policy, tools, find_lost)
        self.policy = policy
        if self._early:
            engine.stop(self._early)
        deadline = Deadline(self.parts.clock, policy.limits, partial(engine.halt, "time"))

        def stood_still(seconds: float) -> None:
            engine.stood_still(seconds)
            deadline.look()

        detector = SuspendDetector(self.parts.clock, stood_still) if self.parts.detects_suspends else None
        try:
            while True:
                ended = asyncio.Event()
                asked = asyncio.create_task(self.requests.serve(engine, ended), name="asks")
                halt = await engine.run()
                while lost and await self._goes_on_with_lost(lost, engine):
                    halt = await engine.run()
                ended.set()
                answered = await self._last_answers(asked)
                if halt or not answered or await self.at_rest():
                    return engine.halted
        finally:
            if detector:
                detector.stop()
            deadline.stop()

    def _lost_requests(self, tools: Tools) -> LostRequests | None:
        """Return what looks for lost submissions; None where the vendor lists no past requests."""
        history, register = self.api.history, self.ledger.register
        return LostRequests(self, tools, history, register) if history and register else None

    async def _goes_on_with_lost(self, lost: LostRequests, engine: Engine) -> bool:
        """Look for lost submissions once the work is done, and once more a while later.

        Return whether there is work again: some were found, or are to be submitted again as none were.
        """
        if engine.halted and engine.halted.drain is not Drain.FINISH:
            return False
        if await engine.search():
            return True
        if await lost.may_come_soon():
            count = len(await lost.uncertain())
            await self.warn(
                f"{count} lost submission{'s' if count > 1 else ''} may be in the list of past requests: "
                f"looked for once more in {ONCE_MORE_AFTER:.0f} s"
            )
            await engine.rest(ONCE_MORE_AFTER)
            if engine.halted and engine.halted.drain is not Drain.FINISH:
                return False
            if await engine.search():
                return True
        return engine.halted is None and await engine.resubmit()

    async def _found(self, lost: LostRequests) -> Sequence[Found]:
        found = await self._unless_stopped(lost.find())
        self._search_broken_off = found is None
        return found or []

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do work that a signal ends; return what came of it, None where it was ended."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._signalled.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _last_answers(self, asked: asyncio.Task[int]) -> int:
        """Let requests that came late be carried out too; after a signal not for long, after a second not at all."""
        waited = 0.0
        while not asked.done():
            if self._signals > 1 or (self._signals and waited >= _LAST_ANSWERS):
                asked.cancel()
            await asyncio.wait({asked}, timeout=_LOOK)
            waited += _LOOK if self._signals else 0.0
        return 0 if asked.cancelled() else asked.result()

    def stop(self, number: int) -> None:
        """End on a signal: the first lets what is in hand end, a second drops everything."""
        self._signals += 1
        self._signalled.set()
        drain = Drain.SIGNAL if self._signals == 1 else Drain.NOW
        halt = Halt("interrupted", f"stopped by signal {number}", SIGNAL_BASE + number, drain)
        if self.engine:
            self.engine.stop(halt)
        else:
            self._early = halt

    def tools(self, wire: Wire, meta: Mapping[str, Any]) -> Tools:
        """Return what the steps of a job work with."""
        return Tools(
            wire=wire,
            api=self.api,
            offer=Offers(self.api, wire, self._known_models, self.warn).of,
            store=self.store,
            clock=self.parts.clock,
            chance=self.parts.chance,
            root=Path(str(meta.get("root") or ".")),
            origin=self.origin(meta),
            make_room=self.make_room,
        )

    def origin(self, meta: Mapping[str, Any]) -> Origin:
        """Say where this run's jobs come from."""
        return Origin(self.owner.provider, str(meta.get("manifest_file") or "-"), meta.get("manifest_sha256") or None)

    async def make_room(self, stem: str, job_id: str) -> str:
        """Give the name a job's file may take: an unlisted job's files give way, a listed one's stay."""
        owners = await self.ledger.ask("owners_of_name", stem=stem, id=job_id)
        if any(owner["listed"] for owner in owners):
            return f"{stem}~{job_id}"
        for owner in owners:
            if now_at := await asyncio.to_thread(self.store.give_way, owner["file"], owner["id"]):
                await self.ledger.file_moved(owner["id"], owner["file"], now_at)
        return stem

    async def pace(self, policy: Policy) -> Pace:
        """Make the deciders, and tell them what the ledger remembers."""
        limits, retry = policy.limits, policy.retry
        usual = Usual()
        for row in reversed(await self.ledger.ask("latencies")):
            usual.learn(kind_of(row["model"], row["class"]), max(0.0, row["seconds"]))
        budget = await self.purse.budget(limits.max_cost_usd)
        budget.broad = await self.purse.is_short(budget)
        return Pace(
            window=Window(limits.concurrency),
            speed=Speed(),
            rate=Rate(limits.requests_per_second),
            patience=Patience(retry.patience),
            budget=budget,
            caution=Caution(retry.max_uncertain, retry.max_failures, await self._undecided()),
            usual=usual,
        )

    async def _undecided(self) -> int:
        """Count the submissions whose answers were lost since the user last decided about such."""
        lost = int((await self.ledger.ask("uncertain"))[0]["jobs"])
        decided = int((await self.meta()).get("uncertain_decided") or 0)
        if lost < decided:  # some have been settled since
            await self.ledger.decided()
        return max(0, lost - decided)

    async def decided(self) -> None:
        """Note that the user has decided about what is uncertain now."""
        await self.ledger.decided()
        if self.engine:
            self.engine.decided()

    async def _states(self) -> dict[str, int]:
        """Count the jobs that this run is to bring to rest."""
        counts: dict[str, int] = {}
        for row in await self.ledger.ask("states"):
            if row["listed"] and row["selected"]:
                counts[row["state"]] = counts.get(row["state"], 0) + row["jobs"]
        return counts

    async def _others_at_work(self) -> dict[str, int]:
        """Count the jobs that the server has, or may have, and that the manifest or the selection left out since."""
        counts: Counter[str] = Counter()
        for row in await self.ledger.ask("states"):
            if row["state"] in IN_FLIGHT | {State.FETCHING} and not (row["listed"] and row["selected"]):
                counts[row["state"]] += row["jobs"]
        return counts

    def _outcome(self, states: Mapping[str, int], others: Mapping[str, int], halt: Halt | None) -> Outcome:
        left = sum(count for state, count in states.items() if State(state) not in SETTLED) + sum(others.values())
        if not left and not (halt and self._search_broken_off):
            return Outcome(EXIT_OK if set(states) <= {State.DONE} else EXIT_SETTLED, None)
        halt = halt or Halt("bug", f"{left} jobs were left without a reason", 70, Drain.FINISH)
        message = "; ".join([halt.message, *left_behind(Counter(states) + Counter(others))])
        return Outcome(halt.exit_code, self._stopped(halt, message))

    def _stopped(self, halt: Halt, message: str) -> Stopped:
        resume = command("resume", self.out)
        resubmits = self.policy.retry.uncertain == "resubmit"
        if halt.reason == "failures":
            message += f"; see: {command('jobs', self.out, '--state', 'failed')}"
        following = {
            "token": f"{self.api.traits.token_names[0]}=... {resume}",
            "budget": f"{resume} --max-cost {math.ceil(self._would_cost * 100 - 1e-6) / 100:.2f}",
            "uncertain": resume if resubmits else command("retry", self.out, "--state", "uncertain"),
            "moved": f"{resume} --accept-moved",
        }
        retryable = halt.reason in {"time", "unreachable", "interrupted"}
        return Stopped(halt.reason, message, halt.exit_code, following.get(halt.reason, resume), retryable)

    async def _close_books(self, meta: Mapping[str, Any], outcome: Outcome) -> None:
        requests = int(meta.get("requests") or 0) + (self._wire.sent if self._wire else 0)
        noted: dict[str, object] = {"requests": requests, "ended": True}
        if self.engine:
            noted["price_classes"] = self.engine.budget.noted()
        await self.ledger.put_meta(noted)
        await self.ledger.say(Ended(self.parts.clock.now(), outcome.exit_code, outcome.stopped))
        asks.tidy(self.out)
        await asyncio.to_thread(self.store.close)
        try:
            await asyncio.to_thread(self._write_summary)
        except (OSError, BatcherError):
            if outcome.stopped is None:  # else there is a better word for what is wrong than this
                raise

    def _write_summary(self) -> None:
        draft = self.out / ".summary.json"
        draft.unlink(missing_ok=True)
        draft.write_text(json.dumps(status(self.out), ensure_ascii=False, indent=2) + "\n", "utf-8")
        draft.replace(self.out / "summary.json")

    async def refuse(self, reason: str, message: str) -> Outcome:
        """Say in the books why this start could not even begin."""
        halt = Halt(reason, message, *HALTS[reason])
        outcome = Outcome(halt.exit_code, self._stopped(halt, message))
        await self._close_books(await self.meta(), outcome)
        return outcome

    async def note_down(self, message: str) -> None:
        """Write something into the log that the user need not be told."""
        await self.ledger.say(Noted(self.parts.clock.now(), message))

    async def warn(self, message: str) -> None:
        """Tell the user something that stops nothing."""
        await self.ledger.say(Warned(self.parts.clock.now(), message))


def _unchanged(out: Path) -> bool:
    """Return whether a run's local images have the size and the time of change that they had."""
    with Reader(out) as reader:
        for row in reader.images():
            try:
                found = os.stat(row["path"])  # noqa: PTH116 - for a million of them
            except OSError:
                return False
            if (found.st_size, found.st_mtime_ns) != (row["size"], row["mtime_ns"]):
                return False
    return True


def policy_facts(policy: Policy) -> dict[str, Any]:
    """Write a policy as the ledger keeps it."""
    return asdict(policy)


def policy_of(facts: object) -> Policy:
    """Read a policy as the ledger keeps it."""
    return _POLICY.validate_python(facts) if facts else Policy()
