"""Gives jobs that the manifest names again their files back, which gave way while it did not. Buys nothing."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from batcher.job import Job, Move, Output, State
from batcher.outputs.sidecar import Origin, sidecar, sidecar_file, stem_of
from batcher.runs.run_directory import RunDirectory

_AT_ONCE: Final = 500
"""Jobs that are read at once."""


async def restore_files(directory: RunDirectory) -> None:
    """Move the files of done jobs back from `replaced/`; have those fetched again that are not there any more.

    What stands under their names now gives way in turn, if it is of jobs that are not named; else they take another.
    """
    ids = iter([row["job_id"] for row in await directory.ledger.ask("gave_way")])
    count, origin = 0, directory.origin(await directory.meta())
    while page := list(islice(ids, _AT_ONCE)):
        gone: defaultdict[str, set[int]] = defaultdict(set)
        for job in await directory.ledger.whole(page):
            for output in job.outputs:
                if output.file is None or not output.file.startswith("replaced/"):
                    continue
                if await _restore(directory, origin, job, output):
                    count += 1
                else:
                    gone[job.id].add(output.index)
        for job in await directory.ledger.whole(gone):
            outputs = tuple(replace(one, file=None) if one.index in gone[job.id] else one for one in job.outputs)
            message = "its file gave way to another job's, and is gone: fetched again"
            await directory.ledger.record(job, Move(State.FETCHING, message=message, outputs=outputs, asked=True))
    if count:
        await directory.note_down(f"{count:,} files are back in files/, of jobs that the manifest names again")


async def _restore(directory: RunDirectory, origin: Origin, job: Job, output: Output) -> bool:
    """Move a file back under its name, and its sidecar after it; return whether it was there.

    A start that was cut off may have moved it already.
    """
    store, now_at = directory.store, str(output.file)
    stem = await directory.make_room(stem_of(job, output), job.id)
    file = f"{stem}{PurePosixPath(now_at).suffix}"
    said = await asyncio.to_thread(store.read_sidecar, now_at)
    content = (
        {**said, "output": {**said["output"], "file": file}}
        if said
        else sidecar(job, replace(output, file=file), len(job.outputs), origin)
    )
    moved = await asyncio.to_thread(store.bring_back, now_at, file)
    if not moved and (output.sha256 is None or await asyncio.to_thread(store.digest, file) != output.sha256):
        return False
    await asyncio.to_thread(store.write_sidecar, sidecar_file(file), content, f"{job.id}-{output.index}.json")
    await directory.ledger.file_moved(job.id, now_at, file)
    await asyncio.to_thread(store.drop_sidecar, now_at)
    return True
