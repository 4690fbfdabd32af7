"""What programs call: plan a manifest, run it, watch it run, look at a run directory. Prints nothing, asks nothing.

What would be a question on a terminal is an error that names the keyword which answers it.
"""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, Unpack

from batcher.errors import ManifestFaulty, NotMeant, WrongUse
from batcher.events import Event
from batcher.job import FailureKind, Job, State
from batcher.ledger.import_jobs import TooManyUnlisted
from batcher.ledger.reader import Reader
from batcher.ledger.rows import event_of
from batcher.manifest.expand import Options
from batcher.manifest.faults import did_you_mean
from batcher.manifest.manifest import Manifest, open_manifest
from batcher.manifest.mapping_manifest import forget, mapping_manifest
from batcher.runs import descriptors, planning
from batcher.runs.logged import logged
from batcher.runs.planning import Plan
from batcher.runs.run import Outcome, Run
from batcher.runs.run_request import Overrides, RunRequest, Selection
from batcher.runs.starting import Cost, begin
from batcher.settings import seconds, time_of_day
from batcher.show.progress import listener
from batcher.show.status import status
from batcher.show.words import money

T = TypeVar("T")
ManifestLike = str | Path | Mapping[str, Any]
"""The path of a manifest, or a mapping as in YAML, whose `jobs` may be any iterable of mappings."""
Duration = float | str
"""Seconds, or a text with its unit: `90s`, `30m`, `8h`."""
_TICK: Final = 5.0
"""Seconds between looks at whether progress is to be said though nothing happened."""
_PAGE: Final = 500
"""Events that are read at once."""


class PlanKeywords(TypedDict, total=False):
    """What `plan`, `run` and `open_run` take beside the manifest: as the options of the commands do."""

    out: str | Path | None
    model: str | None
    provider: str | None
    set: Mapping[str, Any] | None
    where: str | None
    limit: int | None
    sample: int | None
    concurrency: int | None
    max_cost_usd: float | None
    max_time: Duration | None
    until: str | None
    patience: Duration | None
    skip_invalid: bool
    reuse: Iterable[str | Path]
    sandbox: bool
    yes: bool
    replace_done: bool


def plan(manifest: ManifestLike, **keywords: Unpack[PlanKeywords]) -> Plan:
    """Return what a run would do and cost, and every fault of the manifest. Sends nothing, makes nothing.

    Works anywhere, within a running event loop too.
    """
    try:
        wanted = _wanted(manifest, keywords)
    except ManifestFaulty as faulty:
        return Plan(faults=[*faulty.faults], fault_count=faulty.count, hint=faulty.hint)
    try:
        return _complete(planning.plan(wanted))
    finally:
        forget(wanted.manifest)


def run(manifest: ManifestLike, **keywords: Unpack[PlanKeywords]) -> Outcome:
    """Run a manifest until every job is settled, or something stops it; run it again, and it goes on where it was.

    Blocks. Interrupted, it stops submitting, waits for what is on its way, and raises KeyboardInterrupt. Raises
    ManifestFaulty and the other errors of `batcher.errors`; within a running event loop WrongUse.
    """
    if _in_loop():
        raise WrongUse("an event loop runs here: use `async with batcher.open_run(...) as run`")

    async def work() -> Outcome:
        async with open_run(manifest, **keywords) as opened:
            return await opened.wait()

    return asyncio.run(work())


class OpenRun:
    """A run at work."""

    def __init__(self, opened: Run, since: int) -> None:
        self.out = opened.directory.out
        """The run directory."""
        self.outcome: Outcome | None = None
        """How it ended; None while it is at work."""
        self._run = opened
        self._since = since
        """The last event before it began."""
        self._news = asyncio.Event()
        opened.directory.listen(self._notify)
        self._work = asyncio.create_task(self._working(), name="run")

    async def _working(self) -> Outcome:
        try:
            self.outcome = await self._run.work()
        finally:
            self._news.set()
        return self.outcome

    def _notify(self, event: Event) -> None:  # noqa: ARG002 - it is read from the ledger
        self._news.set()

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens, from the beginning of the run to its end.

        They are read from the ledger: what nobody reads takes no memory, and holds nothing up.
        """
        seen = self._since
        while True:
            self._news.clear()
            rows = await self._run.directory.ledger.ask("events_after", seq=seen, limit=_PAGE)
            for row in rows:
                seen = row["seq"]
                yield event_of(row)
            if rows:
                continue
            if self._work.done():
                self._work.result()
                return
            await self._news.wait()

    async def wait(self) -> Outcome:
        """Wait until the run has ended; return how. Cancelled, it stops as a signal does, and that is waited for."""
        try:
            return await asyncio.shield(self._work)
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Submit nothing more, wait for what is on its way, and end: nothing is lost, run again to go on."""
        if not self._work.done():
            self._run.stop(signal.SIGINT)
            await asyncio.wait({self._work})

    def status(self) -> dict[str, Any]:
        """Return how the run stands, as `status --json` prints it."""
        return status(self.out).to_json()


@asynccontextmanager
async def open_run(
    manifest: ManifestLike, *, progress: bool = False, **keywords: Unpack[PlanKeywords]
) -> AsyncIterator[OpenRun]:
    """Start a run; it goes on while the block does its own work. Leaving early stops it as a signal does.

    `progress`: draw its board, on a terminal or in a notebook. Raises as `run` does.
    """
    descriptors.check()
    wanted = _wanted(manifest, keywords)
    answers = _Answers(cost_is_agreed=bool(keywords.get("yes")))
    try:
        async with begin(wanted, answers, lambda _: None) as opened, logged(opened):
            forget(wanted.manifest)
            since = int((await opened.directory.ledger.ask("last_event"))[0][0])
            ticking = _draw_progress(opened) if progress else None
            at_work = OpenRun(opened, since)
            try:
                yield at_work
            finally:
                await _to_the_end(at_work)
                if ticking:
                    ticking.cancel()
    finally:
        forget(wanted.manifest)


async def _to_the_end(at_work: OpenRun) -> None:
    """Stop what is still at work, and wait for it, also where this task is cancelled meanwhile."""
    stopping = asyncio.create_task(at_work.stop())
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if stopping.done():
                raise
    await stopping


def _draw_progress(opened: Run) -> "asyncio.Task[None]":
    drawn = listener(asyncio.get_running_loop().time)
    opened.directory.listen(drawn)

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK)
            drawn.tick()

    return asyncio.create_task(tick(), name="progress")


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, or is uncertain."""

    kind: str
    message: str
    """The server's own words where there are any."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job of a run directory."""

    job_id: str
    state: str
    name: str
    request_id: str | None
    attempts: int
    error: "JobError | None"
    """Why it failed, or is uncertain."""
    files: tuple[Path, ...]
    row: int
    vars: Mapping[str, object]
    inputs: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class OutputView:
    """A file that a run made."""

    file: Path
    job_id: str
    name: str
    model: str
    request_id: str | None
    index: int
    url: str
    bytes: int | None
    sha256: str | None
    mime: str | None
    width: int | None
    height: int | None
    billed_usd: float | None
    """Of the whole request."""
    vars: Mapping[str, object]
    inputs: Mapping[str, object]


class View:
    """A look at a run directory, beside a run at work or after it. What it yields is read as it is asked for."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        Reader(self.out).__exit__()

    def status(self) -> dict[str, Any]:
        """Return how the run stands, as `status --json` prints it."""
        return status(self.out).to_json()

    def jobs(self, state: str | None = None, kind: str | None = None) -> Iterator[JobView]:
        """Yield the jobs that the manifest names, in its order; only those in this state, or of this kind of failure.

        Raises WrongUse where there is no such state or kind.
        """
        if state is not None and state not in set(State):
            raise WrongUse(f"state={state!r}: there is no such state{did_you_mean(state, {*State})}")
        if kind is not None and kind not in set(FailureKind):
            raise WrongUse(f"kind={kind!r}: there is no such kind{did_you_mean(kind, {*FailureKind})}")
        with Reader(self.out) as reader:
            for job, files in reader.jobs(state, kind, listed=True):
                yield _job_view(job, tuple(self.out / file for file in files))

    def outputs(self) -> Iterator[OutputView]:
        """Yield the finished files of the jobs that the manifest names, in its order."""
        with Reader(self.out) as reader:
            for job, outputs in reader.shown(reader.listed_places()):
                for one in outputs:
                    if one.file is None:
                        continue
                    yield OutputView(
                        file=self.out / one.file,
                        job_id=job.id,
                        name=job.spec.name,
                        model=job.spec.model,
                        request_id=job.request_id,
                        index=one.index,
                        url=one.url,
                        bytes=one.bytes,
                        sha256=one.sha256,
                        mime=one.mime,
                        width=one.width,
                        height=one.height,
                        billed_usd=job.billed_usd,
                        vars=job.spec.vars,
                        inputs=job.spec.inputs,
                    )


def view(out: str | Path) -> View:
    """Return a look at a run directory. Works anywhere. Raises NotFound, LedgerUnreadable."""
    return View(out)


def _job_view(job: Job, files: tuple[Path, ...]) -> JobView:
    return JobView(
        job_id=job.id,
        state=str(job.state),
        name=job.spec.name,
        request_id=job.request_id,
        attempts=job.attempt,
        error=None if job.kind is None else JobError(str(job.kind), job.message or ""),
        files=files,
        row=job.spec.row,
        vars=job.spec.vars,
        inputs=job.spec.inputs,
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a program has agreed to; what it has not is an error that names the keyword."""

    cost_is_agreed: bool

    def cost(self, cost: Cost) -> None:
        """Raise NotMeant unless the cost is agreed to, or capped."""
        if not self.cost_is_agreed and cost.limit is None:
            raise NotMeant(
                f"{cost}, more than {money(cost.above)} (confirm_above_usd); nothing was sent",
                f"if that is meant, pass yes=True, or a cap: max_cost_usd={cost.usd:.2f}",
            )

    def unlisted(self, many: TooManyUnlisted) -> None:
        """Raise NotMeant: most of what is done would be left out."""
        raise NotMeant(f"{many} by this manifest; nothing was changed", "if that is meant, pass replace_done=True")


def _wanted(manifest: ManifestLike, given: PlanKeywords) -> RunRequest:
    if unknown := set(given) - set(PlanKeywords.__annotations__):
        raise TypeError(f"there is no keyword {', '.join(sorted(unknown))}")
    out = given.get("out")
    folder = None if out is None else Path(out)
    selection = Selection(given.get("limit"), given.get("sample"), given.get("where"))
    return RunRequest(
        manifest=_opened(manifest, folder),
        out=folder,
        model=given.get("model"),
        provider=given.get("provider"),
        options=Options(_sets(given.get("set") or {}), selection.where, bool(given.get("skip_invalid"))),
        overrides=Overrides(
            concurrency=given.get("concurrency"),
            max_cost_usd=_usd(given.get("max_cost_usd")),
            max_time=_seconds("max_time", given.get("max_time")),
            patience=_seconds("patience", given.get("patience")),
            until=_time("until", given.get("until")),
        ),
        selection=selection,
        sandbox=bool(given.get("sandbox")),
        reuse=tuple(Path(one) for one in given.get("reuse") or ()),
        replace_done=bool(given.get("replace_done")),
    )


def _opened(manifest: ManifestLike, out: Path | None) -> Manifest:
    name = out.name if out else None
    if isinstance(manifest, Mapping):
        return mapping_manifest(manifest, name=name)
    return open_manifest(str(manifest), name=name)


def _sets(given: object) -> dict[str, str]:
    """Return inputs as the command line has them: a text as it is, else JSON. Raises WrongUse."""
    if not isinstance(given, Mapping):
        raise WrongUse(f"set={given!r}: must be a mapping of inputs to values")
    return {name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for name, one in given.items()}


def _seconds(name: str, given: Duration | None) -> float | None:
    if given is None:
        return None
    try:
        found = float(str(seconds(given)))
    except ValueError as error:
        raise WrongUse(f"{name}={given!r}: {error}") from None
    if not 0 < found < float("inf"):
        raise WrongUse(f"{name}={given!r}: must be more than nothing")
    return found


def _usd(given: float | None) -> float | None:
    if given is not None and not 0 <= given < float("inf"):
        raise WrongUse(f"max_cost_usd={given!r}: is not an amount in dollars")
    return None if given is None else float(given)


def _time(name: str, given: str | None) -> str | None:
    try:
        return None if given is None else str(time_of_day(given))
    except ValueError as error:
        raise WrongUse(f"{name}={given!r}: {error}") from None


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, within a running event loop in a thread of its own."""
    if not _in_loop():
        return asyncio.run(work)
    results: list[T] = []
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            errors.append(error)

    worker = threading.Thread(target=thread, name="batcher plan")
    worker.start()
    worker.join()
    if errors:
        raise errors[0]
    return results[0]
