"""Takes over what another run has finished, or what this one had before its ledger was lost. Buys nothing."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batcher.job import Job, Move, State
from batcher.ledger.reader import Reader
from batcher.outputs.finished_jobs import FinishedJob, bring, copy_aside, finished, whole_in_place
from batcher.runs.run_directory import RunDirectory
from batcher.settings import Destination


@dataclass(slots=True)
class Reused:
    """What came of it, in jobs."""

    taken: int = 0
    fetched: int = 0
    """Their files are not what their sidecars say: they are fetched again under their request ids, and not bought."""


async def reuse(directory: RunDirectory, folder: Path) -> Reused:
    """Take over the results of a run directory for jobs that wait here.

    From its own directory the files stay where they are, and what they were billed is known again.
    """
    own = folder.resolve() == directory.out.resolve()
    await asyncio.to_thread(directory.store.prepare)
    reused = Reused()
    for found in finished(folder):
        if found.provider != directory.owner.provider:
            continue
        waiting = await _waiting(directory, found)
        if waiting is None:
            continue
        if await (_recognise(directory, waiting, found) if own else _bring(directory, waiting, found, folder)):
            reused.taken += 1
        else:
            await _fetch_again(directory, waiting, found)
            reused.fetched += 1
    await asyncio.to_thread(directory.store.close)
    directory.rebuilt = own
    return reused


async def _waiting(directory: RunDirectory, found: FinishedJob) -> Job | None:
    """Return the job that a finding is for, if it waits, and no attempt here has that request already."""
    jobs = await directory.ledger.whole([found.job_id])
    if not jobs or jobs[0].state is not State.PENDING:
        return None
    if await directory.ledger.ask("holder", request_id=found.request_id):
        return None
    return jobs[0]


async def _bring(directory: RunDirectory, job: Job, found: FinishedJob, folder: Path) -> bool:
    if not await asyncio.to_thread(copy_aside, found, folder, directory.store):
        return False
    name, one = f"files/{job.spec.name}", len(found.outputs) == 1
    stems = [await directory.make_room(name if one else f"{name}-{output.index}", job.id) for output in found.outputs]
    outputs = await asyncio.to_thread(bring, found, folder, directory.store, stems)
    message = f"taken over from {folder}"
    await directory.ledger.record(job, Move(State.DONE, message=message, request_id=found.request_id, outputs=outputs))
    return True


async def _fetch_again(directory: RunDirectory, job: Job, found: FinishedJob) -> None:
    """Continue a job under the request id that its sidecar knows: it was paid for, and is asked for, not bought."""
    message = "its files are not what their sidecars say: asked for again under its request id"
    await directory.ledger.walk(
        job,
        [Move(State.SUBMITTING, message=message), Move(State.RUNNING, message=message, request_id=found.request_id)],
    )


async def _recognise(directory: RunDirectory, job: Job, found: FinishedJob) -> bool:
    """Restore a job whose ledger was lost: its moves are written again, as its sidecar knows them, all at once."""
    if not await asyncio.to_thread(whole_in_place, found, directory.out):
        return False
    await directory.ledger.walk(
        job,
        [
            Move(State.SUBMITTING, message="rebuilt from its sidecar"),
            Move(State.RUNNING, request_id=found.request_id),
            Move(State.FETCHING, outputs=found.outputs),
            Move(State.DONE, outputs=found.outputs, billed_usd=found.billed_usd),
        ],
    )
    return True


Pages = Callable[[], Iterable[Sequence[str]]]


def held_by_siblings(out: Path, owner: Destination, wanted: Pages) -> dict[Path, int]:
    """Count the jobs among these that other run directories beside this one have done: they could be reused.

    `wanted` gives their ids in pages, once for each directory that may have some.
    """
    found: dict[Path, int] = {}
    for ledger in sorted(out.parent.glob("*/ledger.sqlite")):
        if ledger.parent.resolve() == out.resolve():
            continue
        if count := _done_of(ledger.parent, owner, wanted):
            found[ledger.parent] = count
    return found


def waiting_in(out: Path) -> Pages:
    """Return the ids of jobs that wait in a run directory, when they are asked for."""

    def pages() -> Iterator[list[str]]:
        with Reader(out) as reader:
            yield from reader.waiting_ids()

    return pages


def _done_of(folder: Path, owner: Destination, wanted: Pages) -> int:
    try:
        with Reader(folder) as reader:
            if reader.owner() != owner or not reader.ask("any_done"):
                return 0
            return sum(map(reader.count_done, wanted()))
    except Exception:  # noqa: BLE001 - a directory that cannot be read holds nothing that can be used
        return 0
