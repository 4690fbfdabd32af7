"""A run directory that this process holds: its ledger, its files, and the way to its API. Submits nothing."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from batcher.catalog import Model, bundled, offered, read_entry
from batcher.engine.context import Tools
from batcher.errors import WrongUse
from batcher.events import Listener, Noted, Warned
from batcher.hosting.file_facts import FileFacts
from batcher.job import Spec
from batcher.ledger.import_jobs import Choice, ImportedJobs, import_jobs
from batcher.ledger.ledger import Ledger
from batcher.ledger.reader import Reader
from batcher.ledger.rows import dump
from batcher.ledger.sql import statements
from batcher.outputs.output_folder import OutputFolder
from batcher.outputs.sidecar import Origin
from batcher.provider import PROVIDERS
from batcher.provider.calls import Wire
from batcher.provider.provider import Provider
from batcher.runs.dependencies import Dependencies
from batcher.runs.model_offers import Offers
from batcher.runs.remote_catalogue import look_up
from batcher.settings import SANDBOX, Destination, Endpoint

Connect = Callable[[], Awaitable[tuple[Endpoint, Wire]]]


class RunDirectory:
    """A run directory that this process holds. Made by `open_directory`."""

    def __init__(
        self, out: Path, ledger: Ledger, owner: Destination, connect: Connect, dependencies: Dependencies
    ) -> None:
        self.out = out
        self.owner = owner
        """Whose results it holds."""
        self.secret = ""
        """The token, once there is a connection: the log takes it out of what it writes."""
        self.ledger = ledger
        self.wire: Wire | None = None
        """The way to the API, once there is a connection."""
        self._connect = connect
        self.api: Provider = PROVIDERS[owner.vendor]
        """The protocol that is spoken."""
        self.dependencies = dependencies
        self.store = OutputFolder(out)
        self.rebuilt = False
        """Its ledger was just made anew from its sidecars."""

    async def connect(self) -> Wire:
        """Find the way to the API, starting the sandbox for a rehearsal. Raises TokenMissing, WrongRun."""
        if self.wire is None:
            endpoint, self.wire = await self._connect()
            self.secret = "" if endpoint.provider == SANDBOX else endpoint.token.reveal()
        return self.wire

    def listen(self, listener: Listener) -> None:
        """Call this listener with every event from now on."""
        self.ledger.listen(listener)

    async def meta(self) -> dict[str, Any]:
        """Return what the ledger knows of this run."""
        return await self.ledger.meta()

    async def note(self, facts: Mapping[str, object]) -> None:
        """Record facts of this run in its ledger."""
        await self.ledger.put_meta(facts)

    async def model(self, model_id: str) -> Model:
        """Return a model as the provider offers it: bundled, known to this run, or looked up in its catalogue once.

        Raises WrongUse where the provider does not offer it.
        """
        if found := offered(model_id, self.api.name):
            return found
        if model_id in bundled():
            raise WrongUse(f"{self.api.traits.title} does not offer {model_id}")
        if known := (await self._known_models()).get(model_id):
            return known
        wire = await self.connect()
        model = await look_up(wire, self.api, model_id)
        put = statements("moves.sql")["put_model"]
        entry = {"id": model_id, "entry": json.dumps(model.entry)}
        await self.ledger.transact(lambda connection: connection.execute(put, entry).rowcount)
        return model

    async def _known_models(self) -> dict[str, Model]:
        """Return the models that this run looked up in the API's catalogue, by id."""
        return {row["id"]: read_entry(json.loads(row["entry"])) for row in await self.ledger.ask("models")}

    async def has_taken(self, stands_for: str) -> bool:
        """Return whether the jobs listed now are those of this manifest, and its local images are as they were."""
        meta = await self.meta()
        if meta.get("taken") != stands_for or meta.get("rejected") or meta.get("unmade"):
            return False  # what could not be used may have been mended
        return await asyncio.to_thread(_unchanged, self.out)

    async def import_jobs(
        self,
        jobs: Iterable[tuple[Spec, bool]],
        fresh_images: Iterable[tuple[str, FileFacts]],
        choice: Choice,
        *,
        sure: bool,
        stands_for: str = "",
        facts: Callable[[], Mapping[str, object]] = dict,
    ) -> ImportedJobs:
        """Import a manifest's jobs, all or none. Raises ManifestFaulty, TooManyUnlisted.

        `stands_for` is remembered with them: the same need not be taken in again. So is what `facts` gives once they
        are read: jobs without the limits that they came with would be bought without them.
        """
        now = self.dependencies.clock.now()
        sql = statements("moves.sql")

        def work(connection: sqlite3.Connection) -> ImportedJobs:
            imported = import_jobs(connection, jobs, choice, now, sure=sure)
            names = ("path", "size", "mtime_ns", "facts")
            rows = (dict(zip(names, (path, *facts), strict=True)) for path, facts in fresh_images)
            connection.executemany(sql["put_image"], rows)
            noted = {"taken": stands_for, **facts()}
            connection.executemany(
                sql["put_meta"], [{"key": key, "value": dump(value)} for key, value in noted.items()]
            )
            return imported

        return await self.ledger.transact(work, bound=False)

    def tools(self, wire: Wire, meta: Mapping[str, Any]) -> Tools:
        """Return what the steps of a job work with."""
        return Tools(
            wire=wire,
            api=self.api,
            offer=Offers(self.api, wire, self._known_models, self.warn).of,
            store=self.store,
            clock=self.dependencies.clock,
            chance=self.dependencies.chance,
            root=Path(str(meta.get("root") or ".")),
            origin=self.origin(meta),
            make_room=self.make_room,
        )

    def origin(self, meta: Mapping[str, Any]) -> Origin:
        """Return where this run's jobs come from."""
        return Origin(self.owner.provider, str(meta.get("manifest_file") or "-"), meta.get("manifest_sha256") or None)

    async def make_room(self, stem: str, job_id: str) -> str:
        """Return the name that a job's file may take: an unlisted job's files give way, a listed one's stay."""
        owners = await self.ledger.ask("owners_of_name", stem=stem, id=job_id)
        if any(owner["listed"] for owner in owners):
            return f"{stem}~{job_id}"
        for owner in owners:
            if now_at := await asyncio.to_thread(self.store.give_way, owner["file"], owner["id"]):
                await self.ledger.file_moved(owner["id"], owner["file"], now_at)
        return stem

    async def note_down(self, message: str) -> None:
        """Write something into the log that the user need not be told."""
        await self.ledger.say(Noted(self.dependencies.clock.now(), message))

    async def warn(self, message: str) -> None:
        """Warn the user of something that does not stop the run."""
        await self.ledger.say(Warned(self.dependencies.clock.now(), message))


def _unchanged(out: Path) -> bool:
    """Return whether a run's local images have the size and the time of change that they had."""
    with Reader(out) as reader:
        for row in reader.images():
            try:
                found = os.stat(row["path"])  # noqa: PTH116 - for a million of them
            except OSError:
                return False
            if (found.st_size, found.st_mtime_ns) != (row["size"], row["mtime_ns"]):
                return False
    return True
