"""Opens a run directory: makes it, locks it, recovers its ledger, and finds the way to its API."""

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from batcher.control import mailbox
from batcher.engine.rules import after_crash
from batcher.errors import WrongRun, WrongUse
from batcher.job import State
from batcher.ledger.ledger import Ledger, unreadable
from batcher.ledger.lock import Lock
from batcher.ledger.reader import Reader, has_ledger, no_ledger
from batcher.ledger.request_register import RequestRegister, register_folder
from batcher.ledger.submission_journal import SubmissionJournal
from batcher.outputs.output_folder import sync_folder
from batcher.provider import FIRST, PROVIDERS
from batcher.provider.calls import Wire
from batcher.provider.sign_in import destination, remote
from batcher.runs.dependencies import Dependencies
from batcher.runs.run_directory import RunDirectory
from batcher.settings import SANDBOX, Destination, Endpoint
from batcher.terminal_text import command

_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Errors of a folder that cannot be made which say nothing of its name."""


@asynccontextmanager
async def open_directory(
    out: Path,
    *,
    wanted: Destination | None = None,
    beside: Path | None = None,
    make: bool = False,
    rebuild: bool = False,
    dependencies: Dependencies | None = None,
) -> AsyncIterator[RunDirectory]:
    """Hold a run directory: lock, ledger, the way to the API. With `make` it is made where it is not there.

    `wanted`: whose results it is to hold, None: whosever it does. `rebuild`: files without a ledger are no fault,
    for they are about to be taken over. Raises WrongRun, LedgerInUse, LedgerUnreadable.
    The API is reached, and the sandbox started, only when something is to be asked: a run at rest needs neither.
    """
    dependencies = dependencies or Dependencies()
    fresh = not has_ledger(out)
    if fresh and not make:
        raise no_ledger(out)
    async with AsyncExitStack() as stack:
        if fresh:
            _make(out, rebuild=rebuild)
        ledger = await stack.enter_async_context(_held(out, dependencies))
        owner = await _owner(ledger, out, wanted)
        if PROVIDERS[owner.vendor].history:
            run_id = await _run_id(ledger, dependencies)
            ledger.register = RequestRegister(register_folder(dependencies.state(), owner, run_id), run_id)

        async def connect() -> tuple[Endpoint, Wire]:
            endpoint = await _endpoint(owner, out, beside, stack, dependencies)
            wire = dependencies.wire(endpoint)
            stack.push_async_callback(wire.close)
            return endpoint, wire

        yield RunDirectory(out, ledger, owner, connect, dependencies)


@asynccontextmanager
async def open_made(out: Path) -> AsyncIterator[RunDirectory]:
    """Hold a run directory that is there, whosever results it holds. Raises NotFound, LedgerInUse, LedgerUnreadable."""
    with Reader(out) as reader:
        root = reader.meta().get("root")  # a `.env` may be beside its manifest
    async with open_directory(out, beside=Path(str(root)) if root else None) as directory:
        yield directory


@asynccontextmanager
async def open_ledger(out: Path, *, dependencies: Dependencies | None = None) -> AsyncIterator[Ledger]:
    """Hold a run directory's ledger alone, for what needs no API."""
    if not has_ledger(out):
        raise no_ledger(out)
    async with _held(out, dependencies or Dependencies()) as ledger:
        yield ledger


@asynccontextmanager
async def _held(out: Path, dependencies: Dependencies) -> AsyncIterator[Ledger]:
    lock = Lock(out)
    lock.take()
    mailbox.discard_all(out)
    try:
        try:
            database = await dependencies.database(_ledger_file(out))
        except sqlite3.Error as error:
            raise unreadable(error) from error
        ledger = Ledger(database, dependencies.clock)
        try:
            await ledger.open()
            ledger.submission_journal = SubmissionJournal(dependencies.state(), await _run_id(ledger, dependencies))
            ledger.submission_journal.hold(out)
            await recover(ledger)
            yield ledger
        finally:
            await ledger.close()
    finally:
        lock.free()


async def _run_id(ledger: Ledger, dependencies: Dependencies) -> str:
    """Return the run's own id, made with its ledger: a copy has the same."""
    known = (await ledger.meta()).get("run_id")
    if known is None:
        known = f"{dependencies.chance.getrandbits(64):016x}"
        await ledger.put_meta({"run_id": known})
    return str(known)


async def recover(ledger: Ledger) -> None:
    """Settle what became of jobs whose process is gone, before anything else happens to them."""
    for job in await ledger.under_way(State.SUBMITTING):
        if move := after_crash(job):
            await ledger.record(job, move)
    await ledger.wait_no_more()


def _make(out: Path, *, rebuild: bool) -> None:
    """Make the directory, so that a power cut cannot take it back: SQLite flushes only what is in it."""
    missing = []
    folder = out
    try:
        while not folder.is_dir():
            if folder.exists():
                raise WrongUse(f"{out} cannot be made: {folder} is a file", "choose another directory with -o")
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            sync_folder(one.parent)
    except OSError as error:
        if error.errno in _DISK:
            raise
        raise WrongUse(f"{out} cannot be made: {error.strerror}", "choose another directory with -o") from None
    if not rebuild and (out / "files").is_dir() and any((out / "files").iterdir()):
        raise WrongRun(
            f"{out} has files, and no ledger that says what they cost",
            "put ledger.sqlite back; or have it rebuilt from the sidecars: the same command with "
            f"{command('--reuse', out, '-o', out).removeprefix('batcher ')}; or choose another directory with -o",
        )


def _ledger_file(out: Path) -> Path:
    """Make the ledger's file private before SQLite opens it; its helpers take over the mode."""
    file = out / "ledger.sqlite"
    if file.is_symlink():
        raise WrongUse(f"{file} is a symbolic link: a ledger lies in its run directory, beside its log of changes")
    if not file.exists():
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    return file


async def _owner(ledger: Ledger, out: Path, wanted: Destination | None) -> Destination:
    """Return whose results the ledger holds.

    Raises WrongRun where they are another's than those of this run: results of the sandbox under a real run would be a
    lie, and a request is followed only where it was made.
    """
    meta = await ledger.meta()
    if meta.get("provider") is None:
        owner = wanted or destination()
        await ledger.put_meta({"provider": owner.provider, "vendor": owner.vendor})
        return owner
    known = Destination(str(meta["provider"]), str(meta["vendor"]))
    if known.vendor not in PROVIDERS:
        raise WrongRun(f"{out} holds results of {known.vendor}, which this batcher does not know", "use a newer one")
    if wanted is not None and wanted != known:
        raise WrongRun(
            f"{out} holds results of {_named(known)}; this run is for {_named(wanted)}",
            "choose another directory with -o",
        )
    return known


def _named(owner: Destination) -> str:
    """Return what a user calls whoever makes results."""
    title = PROVIDERS[owner.vendor].traits.title
    return owner.provider if owner.vendor == FIRST or not owner.is_sandbox else f"the sandbox as {title}"


async def _endpoint(
    owner: Destination, out: Path, beside: Path | None, stack: AsyncExitStack, dependencies: Dependencies
) -> Endpoint:
    if owner.is_sandbox:
        return await stack.enter_async_context(dependencies.sandbox(out / SANDBOX, owner.vendor))
    endpoint = remote(beside, owner.vendor)
    endpoint.check_token()
    if endpoint.provider != owner.provider:
        variable = PROVIDERS[endpoint.vendor].traits.api.variable
        raise WrongRun(f"{out} holds results of {owner.provider}; {variable} says {endpoint.provider}")
    return endpoint


def discard(out: Path, *, keep_reasons: bool) -> None:
    """Remove a directory that was made for a manifest that turned out to be wrong; only what a start makes.

    With `keep_reasons`, what says why rows were rejected stays. All of it stays where results were taken over already.
    """
    if not os.path.isdir(out) or ((out / "files").is_dir() and any((out / "files").iterdir())):  # noqa: PTH112
        return
    for name in (
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
        "ledger.lock",
        "ledger.ballast",
        "run.jsonl",
        "summary.json",
    ):
        (out / name).unlink(missing_ok=True)
    if not keep_reasons:
        (out / "rejected.csv").unlink(missing_ok=True)
    shutil.rmtree(out / SANDBOX, ignore_errors=True)
    with contextlib.suppress(OSError):
        out.rmdir()
        if out.parent == Path("runs"):  # made for it, where nothing else is in it
            out.parent.rmdir()
