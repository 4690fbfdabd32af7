"""What a user asks of a run directory that may be at work: the run at work on it does it, else it is done here."""

from collections.abc import Mapping
from pathlib import Path

from batcher.control.client import Done, carry_out
from batcher.control.commands import (
    Acknowledged,
    AdoptRequest,
    CancelQueued,
    ChangeSettings,
    FilesMended,
    JobsRetried,
    LeaveUncertain,
    MendFiles,
    Pause,
    QueueCancelled,
    RequestAdopted,
    RetryJobs,
    SettingsChanged,
)
from batcher.errors import LedgerInUse, WrongUse
from batcher.ledger.lock import is_locked
from batcher.ledger.reader import Reader
from batcher.ledger.retry import RetrySelection
from batcher.runs.commands import Commands, changed
from batcher.runs.opening import open_ledger, open_made
from batcher.settings import Policy
from batcher.terminal_text import command

_ADOPT_WITHIN = 120.0
"""Seconds: the API is asked whether it knows the request."""
_MEND_WITHIN = 3600.0
"""Seconds: files are fetched."""


async def retry(out: Path, which: RetrySelection) -> Done[JobsRetried]:
    """Queue settled jobs of a run again. Raises LedgerInUse, CommandRefused."""

    async def here() -> JobsRetried:
        async with open_ledger(out) as ledger:
            return JobsRetried(await ledger.retry(which))

    return await carry_out(out, RetryJobs(which), JobsRetried, here)


async def leave_uncertain(out: Path) -> None:
    """Record that the user leaves what is uncertain as it is. Raises LedgerInUse, CommandRefused."""

    async def here() -> Acknowledged:
        async with open_ledger(out) as ledger:
            await ledger.decided()
        return Acknowledged()

    await carry_out(out, LeaveUncertain(), Acknowledged, here)


async def pause(out: Path) -> Done[Acknowledged]:
    """End the run at work in good order, and let none go on until `resume`. Raises LedgerInUse, CommandRefused."""

    async def here() -> Acknowledged:
        async with open_ledger(out) as ledger:
            await ledger.put_meta({"paused": True})
        return Acknowledged()

    return await carry_out(out, Pause(), Acknowledged, here)


async def cancel(out: Path) -> Done[QueueCancelled]:
    """Cancel what is still queued at the server. Raises LedgerInUse, CommandRefused, TokenMissing, Unreachable."""

    async def here() -> QueueCancelled:
        async with open_made(out) as directory:
            return await Commands(directory).cancel()

    return await carry_out(out, CancelQueued(), QueueCancelled, here)


async def adopt(out: Path, job_id: str, request_id: str) -> Done[RequestAdopted]:
    """Continue a job under the request id that the user found.

    Raises WrongUse, LedgerInUse, CommandRefused, Unreachable.
    """

    async def here() -> RequestAdopted:
        async with open_made(out) as directory:
            return await Commands(directory).adopt(job_id, request_id)

    return await carry_out(out, AdoptRequest(job_id, request_id), RequestAdopted, here, _ADOPT_WITHIN)


async def mend(out: Path, files: Mapping[str, list[int]], sidecars: Mapping[str, list[int]]) -> FilesMended:
    """Fetch files of done jobs again, and write sidecars again: job id -> indices of outputs. Buys nothing.

    Raises LedgerInUse, CommandRefused, TokenMissing.
    """

    async def here() -> FilesMended:
        async with open_made(out) as directory:
            return await Commands(directory).mend(files, sidecars)

    return (await carry_out(out, MendFiles(files, sidecars), FilesMended, here, _MEND_WITHIN)).result


async def change_settings(out: Path, settings: Mapping[str, str]) -> SettingsChanged:
    """Change settings of the run at work, for as long as it works. Raises WrongUse, also where no run is at work."""
    changed(Policy(), settings)  # what is wrong is said here, whatever the run is doing
    with Reader(out):
        pass

    async def here() -> SettingsChanged:
        if is_locked(out):
            raise LedgerInUse
        raise WrongUse(
            f"no run is at work on {out}: settings are set for as long as a run works",
            f"give them as options: {command('resume', out)} --concurrency N, or write them into the manifest",
        )

    return (await carry_out(out, ChangeSettings(settings), SettingsChanged, here)).result
