"""Gives jobs that the manifest names again their files back, which gave way while it did not. Buys nothing."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

from batcher.job import Job, Move, Output, State
from batcher.outputs.output_folder import OutputFolder
from batcher.outputs.sidecar import sidecar, sidecar_file, stem_of
from batcher.runs.run_directory import RunDirectory


async def restore_files(directory: RunDirectory) -> None:
    """Move the files of done jobs back from `replaced/`; have those fetched again that are not there any more.

    What stands under their names now gives way in turn, if it is of jobs that are not named; else they take another.
    """
    gone: defaultdict[str, set[int]] = defaultdict(set)
    count = 0
    rows = await directory.ledger.ask("gave_way")
    jobs = await directory.ledger.whole(dict.fromkeys(row["job_id"] for row in rows))
    for job in jobs:
        for output in job.outputs:
            if output.file is None or not output.file.startswith("replaced/"):
                continue
            if await _restore(directory, job, output):
                count += 1
            else:
                gone[job.id].add(output.index)
    if count:
        await directory.note_down(f"{count:,} files are back in files/, of jobs that the manifest names again")
    for job in await directory.ledger.whole(gone):
        outputs = tuple(replace(one, file=None) if one.index in gone[job.id] else one for one in job.outputs)
        message = "its file gave way to another job's, and is gone: fetched again"
        await directory.ledger.record(job, Move(State.FETCHING, message=message, outputs=outputs, asked=True))


async def _restore(directory: RunDirectory, job: Job, output: Output) -> bool:
    """Move a file back under its name; return whether it was there."""
    now_at = str(output.file)
    stem = await directory.make_room(stem_of(job, output), job.id)
    file = f"{stem}{PurePosixPath(now_at).suffix}"
    content = sidecar(job, replace(output, file=file), len(job.outputs), directory.origin(await directory.meta()))
    if not await asyncio.to_thread(_move_back, directory.store, now_at, file, output.sha256):
        return False
    await asyncio.to_thread(directory.store.write_sidecar, sidecar_file(file), content, f"{job.id}-{output.index}.json")
    await directory.ledger.file_moved(job.id, now_at, file)
    return True


def _move_back(store: OutputFolder, now_at: str, file: str, sha256: str | None) -> bool:
    """Move a file, unless a start that was cut off has moved it already; return whether it is under its name."""
    return store.bring_back(now_at, file) or (sha256 is not None and store.digest(file) == sha256)
