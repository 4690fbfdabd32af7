"""Fetches again what `verify` found missing or damaged: whole and at hand before anything that stands gives way."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

from batcher.engine.context import Tools
from batcher.job import Job, Move, Output, State
from batcher.ledger.ledger import Ledger
from batcher.outputs.download import Fetched, fetch
from batcher.outputs.failures import Failed, UrlRefused, UrlUnusable
from batcher.outputs.output_folder import OutputFolder
from batcher.outputs.sidecar import Origin, sidecar, sidecar_file
from batcher.pacing.outage import growing
from batcher.provider.replies import Finished

_TRIES: Final = 4
"""Tries to fetch one file."""
_SLOW_AFTER: Final = 120.0
"""Seconds after which a file that hardly grows is given up."""


async def repair(job: Job, wanted: Collection[int], tools: Tools, ledger: Ledger) -> tuple[list[str], list[str]]:
    """Fetch these of a job's outputs again; return the files that came, and for each other why it did not.

    Nothing is bought. A job of which nothing can be had stays done.
    """
    await asyncio.to_thread(tools.store.ready)
    fresh = await _urls(job, tools)
    came: list[tuple[Output, Fetched]] = []
    lost: list[str] = []
    for output in job.outputs:
        if output.index not in wanted:
            continue
        got = await _fetch(job, output, fresh, tools)
        if isinstance(got, Fetched):
            came.append((output, got))
        else:
            lost.append(f"{output.file or f'output {output.index}'}: {got.message}")
    if came:
        await _place(job, came, tools, ledger)
    return [str(output.file) for output, _ in came], lost


async def write_sidecar(job: Job, index: int, store: OutputFolder, origin: Origin) -> str:
    """Write the sidecar of one of a job's files again; return its name."""
    await asyncio.to_thread(store.ready)
    output = next(one for one in job.outputs if one.index == index)
    file = sidecar_file(str(output.file))
    content = sidecar(job, output, len(job.outputs), origin)
    await asyncio.to_thread(store.give_way, file, job.id)  # what stands there is not ours to throw away
    await asyncio.to_thread(store.write_sidecar, file, content, f"{job.id}-{index}.json")
    return file


async def _urls(job: Job, tools: Tools) -> tuple[str, ...]:
    """Ask for the result again: what it names now is fresher than what is remembered."""
    request = await tools.reference(job)
    answer = await tools.wire.send(replace(tools.api.result(request, tools.store.parts), fresh=True))
    reply = tools.api.read_result(answer, tools.clock.now(), request)
    return reply.urls if isinstance(reply, Finished) else ()


async def _fetch(job: Job, output: Output, fresh: tuple[str, ...], tools: Tools) -> Fetched | Failed:
    url = fresh[output.index - 1] if len(fresh) >= output.index else output.url
    if url.startswith("data:") and url.endswith(","):
        return UrlRefused("it came within the result, which the server does not have any more")
    trying = AsyncRetrying(
        retry=retry_if_result(lambda got: not isinstance(got, Fetched | UrlRefused | UrlUnusable)),
        wait=growing(tools.chance),
        sleep=asyncio.sleep,
        stop=stop_after_attempt(_TRIES),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    key = f"{job.id}-{output.index}"
    got: Fetched | Failed = await trying(fetch, url, tools.wire, tools.store, key, _as_it_is, _SLOW_AFTER)
    return got


async def _place(job: Job, came: list[tuple[Output, Fetched]], tools: Tools, ledger: Ledger) -> None:
    """Put what came in its place; a kill in between leaves the job fetching, and the next run ends it."""
    job = await ledger.record(job, Move(State.FETCHING, message="a file was missing or damaged", asked=True))
    placed = {output.index: output for output in job.outputs}
    for output, got in came:
        stem = PurePosixPath(output.file or f"files/{job.spec.name}-{output.index}").with_suffix("")
        file = f"{stem}.{got.media.extension}"
        await asyncio.to_thread(tools.store.place, got.part, file, job.id)
        placed[output.index] = got.output(output, file, tools.clock.now())
        await write_sidecar(replace(job, outputs=tuple(placed.values())), output.index, tools.store, tools.origin)
    await ledger.record(job, Move(State.DONE, outputs=tuple(placed.values()), billed_usd=job.billed_usd))


def _as_it_is(got: Fetched) -> Fetched:
    return got
