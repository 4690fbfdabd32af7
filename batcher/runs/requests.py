"""What the user can ask of a run: done here, and for other terminals by the run at work. Decides nothing of a job."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from batcher.errors import BatcherError, TokenMissing, Unreachable, WrongUse
from batcher.events import Changed
from batcher.job import NO_URLS, Job, Move, State
from batcher.ledger import asks
from batcher.ledger.adoption import adoptable
from batcher.ledger.again import Which
from batcher.manifest.faults import did_you_mean
from batcher.pacing.patience import backoff
from batcher.plain import command
from batcher.provider.damaged import named_id
from batcher.provider.provider import Reference
from batcher.provider.replies import (
    Broken,
    CancelAsked,
    CancelDone,
    Cancelled,
    CancelReply,
    CancelTooLate,
    Completed,
    Finished,
    Forbidden,
    Misdirected,
    Missing,
    Unauthorized,
    Unavailable,
)
from batcher.runs.repair import repair, write_sidecar
from batcher.settings import Limits, Policy, Retry

if TYPE_CHECKING:
    from batcher.engine.context import Tools
    from batcher.engine.engine import Engine
    from batcher.runs.run import Run

_AT_ONCE: Final = 16
_LOOKS_AFTER_CANCEL: Final = 3
"""Looks at a request that was asked to end; what is still at work then runs on, and the next start looks again."""
_CANCELS: Final = Path("cancellations")
"""Stands among the requests for the cancellations that follow one."""
_FIXED: Final = frozenset({"max_time", "until", "confirm_above_usd", "uncertain"})
"""Settings that mean something only at a start."""
_ALSO: Final = {"max_cost": "max_cost_usd"}


class Requests:
    """Carries out what is asked of one run. Each answer is a JSON object."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._cancels: set[str] = set()
        """Jobs of which the server has said whether they are cancelled."""
        self._cancelling = False
        self._troubled = 0
        """Cancellations of which the server said nothing."""

    async def serve(self, engine: Engine, ended: asyncio.Event) -> int:
        """Carry out what other processes ask of this run, until it has ended, and once more then; count them.

        Each request has a task of its own: one that waits for the server keeps no other waiting.
        """
        tasks: dict[Path, asyncio.Task[None]] = {}
        begun: set[Path] = set()
        last = False
        try:
            while not last:
                last = ended.is_set()
                for file in asks.waiting(self._run.out):
                    if file not in begun:  # also where its answer could not be written: once, it may buy
                        begun.add(file)
                        tasks[file] = asyncio.create_task(self._answer(file, engine))
                tasks = {file: task for file, task in tasks.items() if not task.done()}
                if self._cancelling:  # a submission that was on its way may have reached the queue since
                    tasks.setdefault(_CANCELS, asyncio.create_task(self._cancel_rest()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), self._run.parts.asked_every)
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return len(begun)

    async def _answer(self, file: Path, engine: Engine) -> None:
        """Do what a file asks, and say what came of it there."""
        try:
            said = await self._carry_out(json.loads(file.read_text("utf-8")), engine)
        except (BatcherError, OSError, ValueError, TypeError, LookupError) as error:
            exit_code = error.exit_code if isinstance(error, BatcherError) else 70
            said = {"error": str(error), "hint": getattr(error, "hint", ""), "exit_code": exit_code}
            await self._complain(error)
        with contextlib.suppress(OSError):  # whoever asked does it itself once the run has ended
            asks.answer(file, said)

    async def _complain(self, error: Exception) -> None:
        with contextlib.suppress(BatcherError):
            await self._run.warn(f"a request from another terminal could not be carried out: {error}")

    async def _cancel_rest(self) -> None:
        """Cancel what is queued; where the server did not say whether it did, again and again while the run lasts."""
        try:
            await self.cancel()
        except Unreachable as error:
            if not self._troubled:
                with contextlib.suppress(BatcherError):
                    await self._run.warn(f"cancelling: {error}; tried again until the run ends")
            self._troubled += 1
            await asyncio.sleep(backoff(self._troubled, self._run.parts.chance))
        except BatcherError as error:
            self._cancelling = False
            await self._complain(error)

    async def _carry_out(self, ask: Mapping[str, Any], engine: Engine) -> Mapping[str, Any]:
        match ask["do"]:
            case "retry":
                return {"jobs": await self.retry(Which(**ask["which"]))}
            case "adopt":
                return await self.adopt(ask["job"], ask["request_id"])
            case "verify":
                return await self.repair(ask["jobs"], ask["sidecars"])
            case "decide":
                await self._run.decided()
                return {}
            case "set":
                return await self.change(ask["settings"])
            case "pause":
                await self.pause()
                engine.halt("paused", "paused by the user; `resume` lifts it")
                return {}
            case "cancel":
                self._cancelling = True
                engine.halt("paused", "cancelled by the user; what was not submitted stays pending")
                return {}
            case other:
                raise WrongUse(f"{other!r} is nothing that can be asked of a run")

    async def retry(self, which: Which) -> int:
        """Let settled jobs go on, as the table of states says; return how many."""
        count = await self._run.ledger.retry(which, self._take)
        if which.state == State.UNCERTAIN and self._run.engine:
            self._run.engine.decided()
        return count

    async def pause(self) -> None:
        """Let no `run` go on with this directory, until `resume`."""
        await self._run.note({"paused": True})

    async def adopt(self, job_id: str, request_id: str) -> Mapping[str, Any]:
        """Give a job the request id that the user found. Raises WrongUse where the API does not know it."""
        if named_id(request_id) is None:
            raise WrongUse(f"{request_id!r} cannot be a request id")
        run = self._run
        meant = await run.ledger.transact(lambda connection: adoptable(connection, job_id, request_id))
        wire = await run.connect()
        tools = run.tools(wire, await run.meta())
        request = await tools.reference(replace(meant, request_id=request_id, follow=NO_URLS))
        answer = await wire.send(replace(run.api.status(request), fresh=True))
        match run.api.read_status(answer, run.parts.clock.now(), request):
            case Missing(message):
                raise WrongUse(f"the API does not know request {request_id}: {message}")
            case Misdirected(named):
                raise Unreachable(f"asked about request {request_id}, the API answers about {named}")
            case Unavailable(message) | Unauthorized(message) | Forbidden(message):
                raise Unreachable(f"the API did not say whether it knows request {request_id}: {message}")
        job, more = await run.ledger.adopt(job_id, request_id)
        if run.engine:
            run.engine.decided()
            if more:
                run.engine.reserve(job)
        self._take(job)
        return {"job_id": job.id, "request_id": request_id, "state": job.state}

    async def repair(self, files: Mapping[str, list[int]], sidecars: Mapping[str, list[int]]) -> Mapping[str, Any]:
        """Mend a run's files: job id -> indices of what is missing or damaged, and of what has no sidecar."""
        run = self._run
        fetched: list[str] = []
        lost: list[dict[str, str]] = []
        meta = await run.meta()
        written = [
            await write_sidecar(job, index, run.store, run.origin(meta))
            for job in await run.ledger.whole(sidecars)
            for index in sidecars[job.id]
        ]
        if files:
            tools = run.tools(await run.connect(), meta)
            for job in await run.ledger.whole(files):
                try:
                    came, why = await repair(job, files[job.id], tools, run.ledger)
                except OSError as error:
                    came, why = [], [str(error)]
                fetched += came
                lost += [{"job_id": job.id, "message": one} for one in why]
        if run.engine is None:
            await asyncio.to_thread(run.store.close)
        return {"fetched": fetched, "written": written, "lost": lost}

    async def change(self, settings: Mapping[str, str]) -> Mapping[str, Any]:
        """Change settings of the run at work; it forgets them when it ends. Raises WrongUse."""
        run = self._run
        policy = changed(run.policy, settings)
        if run.engine is None:
            raise WrongUse("no run is at work on this directory")
        await run.purse.check_prices(policy.limits.max_cost_usd)
        run.policy = policy
        run.engine.obey(policy)
        run.engine.broaden(broad=await run.purse.is_short(run.engine.budget))
        limits, now = policy.limits, run.parts.clock.now()
        await run.ledger.say(Changed(now, dict(settings), limits.concurrency, limits.max_cost_usd))
        return {"limits": asdict(policy.limits), "retry": asdict(policy.retry)}

    async def cancel(self) -> dict[str, int]:
        """Cancel what is still queued at the server; count what became of it. Raises TokenMissing, Unreachable."""
        run = self._run
        wire = await run.connect()
        limit = asyncio.Semaphore(_AT_ONCE)
        tools = run.tools(wire, await run.meta())

        async def one(job: Job) -> CancelReply:
            async with limit:
                request = await tools.reference(job)
                answer = await wire.send(run.api.cancel(request))
                reply = run.api.read_cancel(answer, run.parts.clock.now(), request)
                if isinstance(reply, CancelAsked) and run.engine is None:
                    reply = await self._after_cancel(tools, request)
            if isinstance(reply, CancelDone | CancelAsked | CancelTooLate | Missing):
                self._cancels.add(job.id)
            if isinstance(reply, CancelDone) and run.engine is None:  # a run at work hears of it by its next look
                await run.ledger.record(job, Move(State.CANCELLED, message="cancelled by the user"))
            return reply

        jobs = [job for job in await run.ledger.under_way(State.RUNNING) if job.id not in self._cancels]
        replies = await asyncio.gather(*map(one, jobs))
        cancelled = sum(isinstance(reply, CancelDone) for reply in replies)
        for reply in replies:
            if isinstance(reply, Unauthorized | Forbidden):
                raise TokenMissing(f"{cancelled} were cancelled; then the API refused the token: {reply.message}")
            if isinstance(reply, Unavailable | Misdirected):
                why = reply.message if isinstance(reply, Unavailable) else f"it answered about {reply.named}"
                raise Unreachable(
                    f"{cancelled} were cancelled; of others the API did not say so: {why}",
                    f"try again: {command('cancel', run.out)}",
                )
        return {"cancelled": cancelled, "running": len(replies) - cancelled}

    async def _after_cancel(self, tools: Tools, request: Reference) -> CancelReply:
        """Return what became of a request that was asked to end, as far as its state tells soon."""
        api, clock = tools.api, tools.clock
        for tries in range(_LOOKS_AFTER_CANCEL):
            await asyncio.sleep(backoff(tries, tools.chance) / 4 if tries else 0.0)
            reply = api.read_status(await tools.wire.send(api.status(request)), clock.now(), request)
            if isinstance(reply, Completed):
                reply = api.read_result(await tools.wire.send(api.result(request)), clock.now(), request)
            match reply:
                case Cancelled():
                    return CancelDone()
                case Finished() | Broken():
                    return CancelTooLate("it has ended already")
        return CancelAsked()

    def _take(self, *jobs: Job) -> None:
        """Hand jobs to the run at work."""
        engine = self._run.engine
        if engine is None:
            return
        for job in jobs:
            if job.state is not State.PENDING:
                engine.take(job)
        engine.wake()


def changed(policy: Policy, settings: Mapping[str, str]) -> Policy:
    """Give a policy with settings of a run at work changed, named as in the manifest. Raises WrongUse."""
    for name, value in settings.items():
        key = _ALSO.get(name, name)
        group = next((one for one in (Limits, Retry) if key in {field.name for field in fields(one)}), None)
        if group is None or key in _FIXED:
            known = sorted({field.name for one in (Limits, Retry) for field in fields(one)} - _FIXED)
            meant = did_you_mean(name, known) if key not in _FIXED else ""
            raise WrongUse(
                f"{name} cannot be set on a run at work{meant}",
                "" if "known:" in meant else f"what can: {', '.join(known)}",
            )
        said = policy.limits if group is Limits else policy.retry
        wanted = {**asdict(said), key: None if value.lower() == "none" else value}
        try:
            found: Any = TypeAdapter(group).validate_python(wanted)
        except ValidationError as error:
            raise WrongUse(f"{name}={value}: {error.errors()[0]['msg']}") from None
        policy = replace(policy, limits=found) if group is Limits else replace(policy, retry=found)
    return policy
