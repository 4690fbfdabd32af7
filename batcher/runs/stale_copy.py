"""Tells an older copy of a run's ledger from the newest one, by the journals of its submissions."""

import platform
from collections.abc import Iterator, Mapping
from typing import Any

from batcher.clock import rfc3339
from batcher.events import Noted
from batcher.ledger.submission_journal import JournalEntry, in_log, in_state_file
from batcher.runs.run_directory import RunDirectory


async def check_stale(directory: RunDirectory) -> str | None:
    """Return what to say if this ledger is an older copy of one that went on; what that submitted is uncertain here.

    It is remembered until `accept_as_is`. A run without a journal on this machine is a line in the log.
    """
    meta = await directory.meta()
    if meta.get("moved"):
        return str(meta["moved"])
    last = [next(one, None) for one in _journals(directory, backwards=True)]
    gap = await directory.ledger.behind(_journals(directory), last, str(meta.get("accepted_as_is") or ""))
    if gap is None:
        await _note_strange_place(directory, meta, seen=last[0] is not None)
        return None
    if directory.rebuilt and not gap.uncertain:  # all that was submitted is here again
        await accept_as_is(directory)
        return None
    message = (
        f"this ledger is an older copy: {gap.uncertain + gap.others} submissions were made that it does not know "
        f"({gap.uncertain} of jobs that it would submit again; these are now uncertain)"
    )
    await directory.note({"moved": message})
    return message


async def accept_as_is(directory: RunDirectory) -> None:
    """Go on with an older copy at the user's word. What a clock that was ahead has stamped is accepted with it."""
    seen = (one.at for journal in _journals(directory) for one in journal)
    latest = max(seen, default="")
    now = rfc3339(directory.dependencies.clock.now()) or ""
    await directory.note({"moved": None, "accepted_as_is": max(latest, now)})


def _journals(directory: RunDirectory, *, backwards: bool = False) -> list[Iterator[JournalEntry]]:
    """Return the entries of each journal: in the user's state directory, then the log."""
    found = [in_log(directory.out / "run.jsonl", backwards=backwards)]
    if directory.ledger.submission_journal:
        found.insert(0, in_state_file(directory.ledger.submission_journal.file, backwards=backwards))
    return found


async def _note_strange_place(directory: RunDirectory, meta: Mapping[str, Any], *, seen: bool) -> None:
    host, known = platform.node(), meta.get("host")
    if not seen and await directory.ledger.ask("any_attempt"):
        where = f"; it was last worked on by {known}" if known and known != host else ""
        words = f"this machine has no record of what this run submitted{where}"
        await directory.ledger.say(Noted(directory.dependencies.clock.now(), words))
    if known != host:
        await directory.note({"host": host})
