"""Hashes every file of a run again, and has what is missing or damaged fetched again; buys nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batcher.checks.verify import LEADS_OUT, Damage, Verified, damages
from batcher.control.commands import FileLost, FilesMended
from batcher.errors import BatcherError
from batcher.ledger.reader import Reader
from batcher.runs import controlling
from batcher.terminal_text import command


@dataclass(frozen=True, slots=True)
class Verification:
    """What was hashed, what was not as the ledger says, and what was mended of that."""

    verified: Verified
    damaged: Sequence[Damage]
    mended: FilesMended

    def to_json(self) -> dict[str, Any]:
        """Return it as `verify --json` prints it."""
        shown = [{"job_id": one.job_id, "file": one.file, "problem": one.problem} for one in self.damaged]
        return {**asdict(self.verified), "damaged": shown, **asdict(self.mended)}


async def verify(out: Path) -> Verification:
    """Hash every file of a run again; fetch again what can be had. Raises NotFound, LedgerUnreadable."""
    verified = Verified()
    with Reader(out) as reader:
        found = list(damages(out, reader, verified))
    return Verification(verified, found, await _mend(out, found) if found else FilesMended())


async def _mend(out: Path, found: Sequence[Damage]) -> FilesMended:
    """Fetch again what can be had; a done job's only, for another is not whole anyway."""
    files: dict[str, list[int]] = {}
    sidecars: dict[str, list[int]] = {}
    others = []
    for one in found:
        if one.state == "done":
            (sidecars if one.sidecar_only else files).setdefault(one.job_id, []).append(one.index)
        else:
            others.append(FileLost(one.job_id, f"{one.file}: {_ends_by(out, one.state)}"))
    try:
        mended = await controlling.mend(out, files, sidecars)
    except BatcherError as error:  # no token, no server: what was found is said all the same
        mended = FilesMended(lost=[FileLost(job_id, f"could not be fetched again: {error}") for job_id in files])
    return FilesMended(mended.fetched, mended.written, [*mended.lost, *others])


def _ends_by(out: Path, state: str) -> str:
    """Return what becomes of a damaged file of a job that is not done."""
    if state == LEADS_OUT:
        return "this ledger names a file that is not of its run directory; it was left alone"
    if state in {"pending", "submitting", "running", "fetching"}:
        return f"the job is {state}; next: {command('resume', out)}"
    return f"the job is {state}; its good files are fetched by {command('retry', out, '--state', state)}"
