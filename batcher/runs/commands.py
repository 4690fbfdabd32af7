"""Carries out what a user asks of a run directory that is held here, with the run at work on it or without one."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from typing import Any, Final, assert_never

from pydantic import TypeAdapter, ValidationError

from batcher.control.commands import (
    Acknowledged,
    AdoptRequest,
    CancelQueued,
    ChangeSettings,
    Command,
    FileLost,
    FilesMended,
    JobsRetried,
    LeaveUncertain,
    MendFiles,
    Pause,
    QueueCancelled,
    RequestAdopted,
    Result,
    RetryJobs,
    SettingsChanged,
)
from batcher.engine.context import Tools
from batcher.engine.engine import Engine
from batcher.errors import BatcherError, TokenMissing, Unreachable, WrongUse
from batcher.events import Changed
from batcher.job import NO_URLS, Job, Move, State
from batcher.ledger.adopt import adoptable
from batcher.ledger.retry import RetrySelection
from batcher.manifest.faults import did_you_mean
from batcher.pacing.outage import backoff
from batcher.provider.damaged_json import named_id
from batcher.provider.provider import Reference
from batcher.provider.replies import (
    CancelAsked,
    CancelDone,
    Cancelled,
    CancelReply,
    CancelTooLate,
    Completed,
    Finished,
    Forbidden,
    GenerationFailed,
    Misdirected,
    Missing,
    Unauthorized,
    Unavailable,
)
from batcher.runs import costs
from batcher.runs.repair import repair, write_sidecar
from batcher.runs.run_directory import RunDirectory
from batcher.settings import Limits, Policy, Retry
from batcher.terminal_text import command

_AT_ONCE: Final = 16
"""Cancellations that are on their way at once."""
_LOOKS_AFTER_CANCEL: Final = 3
"""Looks at a request that was asked to end; what is still at work then runs on, and the next start looks again."""
_FIXED: Final = frozenset({"max_time", "until", "confirm_above_usd", "uncertain"})
"""Settings that mean something only at a start."""
_ALSO: Final = {"max_cost": "max_cost_usd"}
"""Settings that have another name on the command line."""


class Commands:
    """What can be asked of one run directory, held here. `engine`: what is at work on it, if anything is."""

    def __init__(self, directory: RunDirectory, engine: Engine | None = None) -> None:
        self._directory = directory
        self._engine = engine
        self._cancelling = False
        """The user wants what is queued cancelled, as long as this run works."""
        self._cancelled: set[str] = set()
        """Jobs of which the server has said whether they are cancelled."""
        self._troubled = 0
        """Cancellations in a row of which the server said nothing."""

    async def carry_out(self, asked: Command) -> Result:
        """Do what another process asks of the run at work."""
        match asked:
            case RetryJobs(which):
                return await self.retry(which)
            case LeaveUncertain():
                return await self.leave_uncertain()
            case AdoptRequest(job_id, request_id):
                return await self.adopt(job_id, request_id)
            case MendFiles(files, sidecars):
                return await self.mend(files, sidecars)
            case ChangeSettings(settings):
                return await self.change(settings)
            case Pause():
                return await self.pause()
            case CancelQueued():
                return self._begin_to_cancel()
            case _:
                assert_never(asked)

    async def complain(self, error: Exception) -> None:
        """Warn the run's own user that a command from another terminal could not be carried out."""
        with suppress(BatcherError):
            await self._directory.warn(f"a request from another terminal could not be carried out: {error}")

    def _begin_to_cancel(self) -> QueueCancelled:
        """Submit nothing more, and have `keep_cancelling` see to what is queued, of which nothing is known yet."""
        self._cancelling = True
        if self._engine:
            self._engine.halt("paused", "cancelled by the user; what was not submitted stays pending")
        return QueueCancelled(0, 0)

    async def keep_cancelling(self, ended: asyncio.Event, every: float) -> None:
        """Cancel what is queued once the user has asked for that, every so many seconds until the run has ended.

        A submission that was on its way may have reached the queue since.
        """
        while True:
            last = ended.is_set()
            if self._cancelling:
                await self._cancel_rest()
            if last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), every)

    async def _cancel_rest(self) -> None:
        """Cancel what is queued; where the server did not say whether it did, that is tried again."""
        try:
            await self.cancel()
        except Unreachable as error:
            if not self._troubled:
                with suppress(BatcherError):
                    await self._directory.warn(f"cancelling: {error}; tried again until the run ends")
            self._troubled += 1
            await asyncio.sleep(backoff(self._troubled, self._directory.dependencies.chance))
        except BatcherError as error:
            self._cancelling = False
            await self.complain(error)

    async def retry(self, which: RetrySelection) -> JobsRetried:
        """Queue settled jobs again, as the table of states says."""
        count = await self._directory.ledger.retry(which, self._take)
        if which.state == State.UNCERTAIN and self._engine:
            self._engine.decided()
        return JobsRetried(count)

    async def leave_uncertain(self) -> Acknowledged:
        """Record that the user has looked at what is uncertain now, and leaves it as it is."""
        await self._directory.ledger.decided()
        if self._engine:
            self._engine.decided()
        return Acknowledged()

    async def pause(self) -> Acknowledged:
        """Finish what is in flight, and let no `run` go on with this directory until `resume`."""
        await self._directory.note({"paused": True})
        if self._engine:
            self._engine.halt("paused", "paused by the user; `resume` lifts it")
        return Acknowledged()

    async def adopt(self, job_id: str, request_id: str) -> RequestAdopted:
        """Continue a job under the request id that the user found. Raises WrongUse where the API does not know it."""
        if named_id(request_id) is None:
            raise WrongUse(f"{request_id!r} cannot be a request id")
        directory = self._directory
        meant = await directory.ledger.transact(lambda connection: adoptable(connection, job_id, request_id))
        wire = await directory.connect()
        tools = directory.tools(wire, await directory.meta())
        request = await tools.reference(replace(meant, request_id=request_id, follow=NO_URLS))
        answer = await wire.send(replace(directory.api.status(request), fresh=True))
        match directory.api.read_status(answer, directory.dependencies.clock.now(), request):
            case Missing(message):
                raise WrongUse(f"the API does not know request {request_id}: {message}")
            case Misdirected(named):
                raise Unreachable(f"asked about request {request_id}, the API answers about {named}")
            case Unavailable(message) | Unauthorized(message) | Forbidden(message):
                raise Unreachable(f"the API did not say whether it knows request {request_id}: {message}")
        job, more = await directory.ledger.adopt(job_id, request_id)
        if self._engine:
            self._engine.decided()
            if more:
                self._engine.reserve(job)
        self._take(job)
        return RequestAdopted(job.id, request_id, job.state)

    async def mend(self, files: Mapping[str, list[int]], sidecars: Mapping[str, list[int]]) -> FilesMended:
        """Fetch files again, and write sidecars again: job id -> indices of what is missing or damaged."""
        directory = self._directory
        fetched: list[str] = []
        lost: list[FileLost] = []
        meta = await directory.meta()
        written = [
            await write_sidecar(job, index, directory.store, directory.origin(meta))
            for job in await directory.ledger.whole(sidecars)
            for index in sidecars[job.id]
        ]
        if files:
            tools = directory.tools(await directory.connect(), meta)
            for job in await directory.ledger.whole(files):
                try:
                    came, why = await repair(job, files[job.id], tools, directory.ledger)
                except OSError as error:
                    came, why = [], [str(error)]
                fetched += came
                lost += [FileLost(job.id, one) for one in why]
        if self._engine is None:
            await asyncio.to_thread(directory.store.close)
        return FilesMended(fetched, written, lost)

    async def change(self, settings: Mapping[str, str]) -> SettingsChanged:
        """Change settings of the run at work; it forgets them when it ends. Raises WrongUse."""
        directory, engine = self._directory, self._engine
        if engine is None:
            raise WrongUse("no run is at work on this directory")
        policy = changed(engine.policy, settings)
        await costs.check_prices(directory.ledger, policy.limits.max_cost_usd)
        engine.apply_policy(policy)
        engine.prefer_breadth(broad=await costs.is_short(directory.ledger, engine.budget))
        limits, now = policy.limits, directory.dependencies.clock.now()
        await directory.ledger.say(Changed(now, dict(settings), limits.concurrency, limits.max_cost_usd))
        return SettingsChanged(policy.limits, policy.retry)

    async def cancel(self) -> QueueCancelled:
        """Cancel what is still queued at the server; count what became of it. Raises TokenMissing, Unreachable."""
        directory = self._directory
        wire = await directory.connect()
        limit = asyncio.Semaphore(_AT_ONCE)
        tools = directory.tools(wire, await directory.meta())

        async def one(job: Job) -> CancelReply:
            async with limit:
                request = await tools.reference(job)
                answer = await wire.send(directory.api.cancel(request))
                reply = directory.api.read_cancel(answer, directory.dependencies.clock.now(), request)
                if isinstance(reply, CancelAsked) and self._engine is None:
                    reply = await self._after_cancel(tools, request)
            if isinstance(reply, CancelDone | CancelAsked | CancelTooLate | Missing):
                self._cancelled.add(job.id)
            if isinstance(reply, CancelDone) and self._engine is None:  # a run at work hears of it by its next look
                await directory.ledger.record(job, Move(State.CANCELLED, message="cancelled by the user"))
            return reply

        jobs = [job for job in await directory.ledger.under_way(State.RUNNING) if job.id not in self._cancelled]
        replies = await asyncio.gather(*map(one, jobs))
        cancelled = sum(isinstance(reply, CancelDone) for reply in replies)
        for reply in replies:
            if isinstance(reply, Unauthorized | Forbidden):
                raise TokenMissing(f"{cancelled} were cancelled; then the API refused the token: {reply.message}")
            if isinstance(reply, Unavailable | Misdirected):
                why = reply.message if isinstance(reply, Unavailable) else f"it answered about {reply.named}"
                raise Unreachable(
                    f"{cancelled} were cancelled; of others the API did not say so: {why}",
                    f"try again: {command('cancel', directory.out)}",
                )
        return QueueCancelled(cancelled, len(replies) - cancelled)

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
                case Finished() | GenerationFailed():
                    return CancelTooLate("it has ended already")
        return CancelAsked()

    def _take(self, *jobs: Job) -> None:
        """Hand jobs to the run at work."""
        engine = self._engine
        if engine is None:
            return
        for job in jobs:
            if job.state is not State.PENDING:
                engine.take(job)
        engine.wake()


def changed(policy: Policy, settings: Mapping[str, str]) -> Policy:
    """Return a policy with settings of a run at work changed, named as in the manifest. Raises WrongUse."""
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
