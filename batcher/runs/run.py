"""One start of a run: works on a directory that is held until every job has settled or something stops it."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from batcher.control import mailbox, server
from batcher.engine.context import Tools
from batcher.engine.deadline import Deadline
from batcher.engine.engine import Engine
from batcher.engine.request_matching import FoundRequest
from batcher.engine.shutdown import HALTS, Drain, Halt
from batcher.engine.suspend_detector import SuspendDetector
from batcher.errors import EXIT_BUG, EXIT_OK, EXIT_SETTLED, SIGNAL_BASE, BatcherError, Stopped
from batcher.events import Ended, Started
from batcher.job import IN_FLIGHT, SETTLED, State
from batcher.ledger.filesystem_check import warnings
from batcher.ledger.reserved_space import ReservedSpace
from batcher.runs import costs
from batcher.runs.commands import Commands
from batcher.runs.lost_requests import ONCE_MORE_AFTER, LostRequests
from batcher.runs.restore_pace import restore_pace
from batcher.runs.restoring import restore_files
from batcher.runs.run_directory import RunDirectory
from batcher.runs.stale_copy import check_stale
from batcher.settings import Policy
from batcher.show import words
from batcher.show.status import status
from batcher.terminal_text import command

T = TypeVar("T")
_LOOK: Final = 0.2
"""Seconds between two looks at whether the last commands from other terminals are answered."""
_LAST_ANSWERS: Final = 1.0
"""Seconds that these have after a signal."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int
    stopped: Stopped | None


class Run:
    """One start of a run on a directory that is held."""

    def __init__(self, directory: RunDirectory, policy: Policy) -> None:
        self.directory = directory
        self.policy = policy
        """What it goes by when it begins."""
        self.engine: Engine | None = None
        self._signals = 0
        self._signalled = asyncio.Event()
        """A signal has come."""
        self._search_broken_off = False
        """A signal came while lost submissions were looked for."""
        self._early: Halt | None = None
        """What ends it that came before there was an engine."""
        self._would_cost = 0.0
        """In USD, with all that is left, where the money was not enough for it."""

    async def at_rest(self) -> bool:
        """Return whether there is nothing to do."""
        rows = await self.directory.ledger.ask("states")
        return not any(
            State(row["state"]) not in SETTLED
            and (row["state"] != State.PENDING or (row["listed"] and row["selected"]))
            for row in rows
        )

    async def has_work(self) -> bool:
        """Return whether there is something to do.

        What is uncertain is, where it is to be submitted again, or looked for in the vendor's list of past requests.
        """
        resubmits = self.policy.retry.uncertain == "resubmit" and (await self._states()).get(State.UNCERTAIN)
        return bool(resubmits) or await self._may_find() or not await self.at_rest()

    async def _may_find(self) -> bool:
        """Return whether there are lost submissions, and a list in which they may be found."""
        rows = await self.directory.ledger.ask("states") if self.directory.api.history else []
        return any(row["state"] == State.UNCERTAIN for row in rows)

    async def work(self) -> Outcome:
        """Drive every selected job until it has settled, or something stops the run."""
        if refused := await self._refused():
            return refused
        reserved_space = self.directory.ledger.reserved_space = ReservedSpace(self.directory.out)
        meta = await self.directory.meta()
        states = await self._states()
        await self.directory.ledger.say(await self._started(str(meta.get("name")), states))
        halt = None
        if await self.has_work():
            await asyncio.to_thread(reserved_space.load)
            halt = await self._drive(meta)
            reserved_space.drop()
        if halt and halt.reason == "budget" and self.engine:
            estimate = await costs.left_usd(self.directory.ledger)
            self._would_cost = self.engine.budget.committed + estimate * self.engine.budget.highest_ratio
        outcome = self._outcome(await self._states(), await self._others_at_work(), halt)
        await self._close_books(meta, outcome)
        return outcome

    async def _started(self, name: str, states: Mapping[str, int]) -> Started:
        """Return what this start begins with."""
        await self.directory.note({"started_at": self.directory.dependencies.clock.now(), "ended": False})
        money = await self.directory.ledger.ask("money")
        to_settle = (await self.directory.ledger.ask("unsettled_estimate"))[0]
        return Started(
            at=self.directory.dependencies.clock.now(),
            name=name,
            provider=self.directory.owner.provider,
            vendor=self.directory.owner.vendor,
            states=states,
            concurrency=self.policy.limits.concurrency,
            billed_usd=round(sum(row["billed"] for row in money), 6),
            left_usd=round(to_settle["usd"], 6) if to_settle["usd"] or not to_settle["jobs"] else None,
            limit_usd=self.policy.limits.max_cost_usd,
        )

    async def _refused(self) -> Outcome | None:
        """Refuse to go on with an older copy, or with what the user has paused; else have the files in their places."""
        if moved := await check_stale(self.directory):
            return await self.refuse("moved", moved)
        await asyncio.to_thread(self.directory.store.prepare)
        await restore_files(self.directory)  # which may leave something to fetch
        if not await self.has_work():
            return None
        if (await self.directory.meta()).get("paused"):
            return await self.refuse("paused", "the run is paused; `resume` lifts that")
        for warning in warnings(self.directory.out):
            await self.directory.warn(warning)
        return None

    async def _drive(self, meta: Mapping[str, Any]) -> Halt | None:
        directory, clock = self.directory, self.directory.dependencies.clock
        tools = directory.tools(await directory.connect(), meta)
        lost = self._lost_requests(tools)
        if lost and not self._early:
            await self._found(lost)
        pace = await restore_pace(self.directory.ledger, self.policy)
        find_lost = partial(self._found, lost) if lost else None
        engine = self.engine = Engine(self.directory.ledger, pace, self.policy, tools, find_lost)
        if self._early:
            engine.stop(self._early)
        deadline = Deadline(clock, self.policy.limits, partial(engine.halt, "time"))

        def on_suspend(seconds: float) -> None:
            engine.on_suspend(seconds)
            deadline.look()

        commands = Commands(directory, engine)
        detector = SuspendDetector(clock, on_suspend) if self.directory.dependencies.detects_suspends else None
        try:
            while True:
                ended = asyncio.Event()
                asked = asyncio.create_task(self._serve(commands, ended), name="commands")
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

    async def _serve(self, commands: Commands, ended: asyncio.Event) -> int:
        """Carry out what other terminals ask until the run has ended; return how many commands there were."""
        every = self.directory.dependencies.asked_every
        cancelling = asyncio.create_task(commands.keep_cancelling(ended, every))
        try:
            count = await server.serve(self.directory.out, commands.carry_out, commands.complain, ended, every)
            await cancelling
        finally:
            cancelling.cancel()
        return count

    def _lost_requests(self, tools: Tools) -> LostRequests | None:
        """Return what looks for lost submissions; None where the vendor lists no past requests."""
        history, register = self.directory.api.history, self.directory.ledger.register
        return LostRequests(self.directory, tools, history, register) if history and register else None

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
            await self.directory.warn(
                f"{count} lost submission{'s' if count > 1 else ''} may be in the list of past requests: "
                f"looked for once more in {ONCE_MORE_AFTER:.0f} s"
            )
            await engine.rest(ONCE_MORE_AFTER)
            if engine.halted and engine.halted.drain is not Drain.FINISH:
                return False
            if await engine.search():
                return True
        return engine.halted is None and await engine.resubmit()

    async def _found(self, lost: LostRequests) -> Sequence[FoundRequest]:
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
        """Carry out commands that came late too; after a signal not for long, after a second not at all."""
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

    async def _states(self) -> dict[str, int]:
        """Return, by state, how many jobs there are that this run is to bring to rest."""
        counts: dict[str, int] = {}
        for row in await self.directory.ledger.ask("states"):
            if row["listed"] and row["selected"]:
                counts[row["state"]] = counts.get(row["state"], 0) + row["jobs"]
        return counts

    async def _others_at_work(self) -> dict[str, int]:
        """Return, by state, how many jobs the server has, or may have, that manifest or selection left out since."""
        counts: Counter[str] = Counter()
        for row in await self.directory.ledger.ask("states"):
            if row["state"] in IN_FLIGHT | {State.FETCHING} and not (row["listed"] and row["selected"]):
                counts[row["state"]] += row["jobs"]
        return counts

    def _outcome(self, states: Mapping[str, int], others: Mapping[str, int], halt: Halt | None) -> Outcome:
        left = sum(count for state, count in states.items() if State(state) not in SETTLED) + sum(others.values())
        if not left and not (halt and self._search_broken_off):
            return Outcome(EXIT_OK if set(states) <= {State.DONE} else EXIT_SETTLED, None)
        halt = halt or Halt("bug", f"{left} jobs were left without a reason", EXIT_BUG, Drain.FINISH)
        message = "; ".join([halt.message, *words.left_behind(Counter(states) + Counter(others))])
        return Outcome(halt.exit_code, self._stopped(halt, message))

    def _stopped(self, halt: Halt, message: str) -> Stopped:
        resume = command("resume", self.directory.out)
        resubmits = self.policy.retry.uncertain == "resubmit"
        if halt.reason == "failures":
            message += f"; see: {command('jobs', self.directory.out, '--state', 'failed')}"
        following = {
            "token": f"{self.directory.api.traits.token_names[0]}=... {resume}",
            "budget": f"{resume} --max-cost {math.ceil(self._would_cost * 100 - 1e-6) / 100:.2f}",
            "uncertain": resume if resubmits else command("retry", self.directory.out, "--state", "uncertain"),
            "moved": f"{resume} --accept-moved",
        }
        retryable = halt.reason in {"time", "unreachable", "interrupted"}
        return Stopped(halt.reason, message, halt.exit_code, following.get(halt.reason, resume), retryable)

    async def _close_books(self, meta: Mapping[str, Any], outcome: Outcome) -> None:
        requests = int(meta.get("requests") or 0) + (self.directory.wire.sent if self.directory.wire else 0)
        noted: dict[str, object] = {"requests": requests, "ended": True}
        if self.engine:
            noted["price_classes"] = self.engine.budget.noted()
        await self.directory.ledger.put_meta(noted)
        now = self.directory.dependencies.clock.now()
        await self.directory.ledger.say(Ended(now, outcome.exit_code, outcome.stopped))
        mailbox.remove_empty(self.directory.out)
        await asyncio.to_thread(self.directory.store.close)
        try:
            await asyncio.to_thread(self._write_summary)
        except (OSError, BatcherError):
            if outcome.stopped is None:  # else there is a better word for what is wrong than this
                raise

    def _write_summary(self) -> None:
        out = self.directory.out
        draft = out / ".summary.json"
        draft.unlink(missing_ok=True)
        draft.write_text(json.dumps(status(out).to_json(), ensure_ascii=False, indent=2) + "\n", "utf-8")
        draft.replace(out / "summary.json")

    async def refuse(self, reason: str, message: str) -> Outcome:
        """Record in the ledger why this start could not even begin."""
        halt = Halt(reason, message, *HALTS[reason])
        outcome = Outcome(halt.exit_code, self._stopped(halt, message))
        await self._close_books(await self.directory.meta(), outcome)
        return outcome
