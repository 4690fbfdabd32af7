"""The step of `fetching`: bring every output home, whole, under its final name, with its sidecar."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from batcher.engine import rules
from batcher.engine.context import SILENT, Context
from batcher.engine.flight import Flight
from batcher.engine.status_reader import StatusReader, words_of
from batcher.job import FailureKind, Job, Move, Output, State
from batcher.outputs.download import FULL_HANDED, Fetched, fetch
from batcher.outputs.failures import Failed, Interrupted, UrlRefused, UrlUnusable, Wrong
from batcher.outputs.sidecar import sidecar, sidecar_file, stem_of
from batcher.pacing.outage import backoff
from batcher.provider.replies import Cancelled, Completed, Finished, GenerationFailed, Missing

DOWNLOADS: Final = 16
"""Outputs that are fetched at once."""


class Fetcher:
    """Fetches the outputs of jobs."""

    def __init__(self, context: Context, reader: StatusReader) -> None:
        self._context = context
        self._tools = context.tools
        self._reader = reader
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self.usual_bytes = 0.0
        """Of a job's outputs, recent ones weighing most."""

    async def fetch(self, flight: Flight) -> Move:
        """Bring every output home, whole, then write the sidecars. One that fails keeps no other from coming."""
        job = flight.job
        placed: dict[int, Output] = {}
        given_up: dict[int, Move] = {}
        troubles: dict[int, rules.DownloadTrouble] = {}
        of_result = rules.DownloadTrouble()
        stale, tries = _needs_result(job), 0
        while True:
            if stale:
                asked_at = self._context.now()
                renewed = await self._renew(job)
                now = self._context.now()
                match renewed:
                    case Job():
                        job, stale, of_result = renewed, False, rules.DownloadTrouble()
                        silent = now - asked_at if now - asked_at > SILENT else 0.0
                        troubles = {index: one.renewed(now, silent) for index, one in troubles.items()}
                    case Move():
                        return replace(renewed, outputs=_in_order(placed))
                    case _:
                        of_result = _troubled(of_result, renewed, now, asked_anew=True)
                        if move := await self._no_result(of_result, renewed):
                            return replace(move, outputs=_in_order(placed))
                        tries = await self._until_the_next_try(job, "its result", tries, of_result, renewed.message)
                        continue
            to_come = [one for one in job.outputs if one.index not in placed.keys() | given_up.keys()]
            if not to_come:
                break
            refresh, trouble, answer = False, rules.DownloadTrouble(), ""
            for output in to_come:
                got = await self._try(flight, job, output)
                if isinstance(got, Output):
                    placed[got.index], tries = got, 0
                    troubles.pop(got.index, None)
                    continue
                now, timeout = self._context.now(), self._context.retry.fetch_timeout
                trouble = _troubled(troubles.get(output.index, rules.DownloadTrouble()), got, now)
                troubles[output.index], answer = trouble, got.message
                if move := rules.given_up(trouble, got, now, timeout):
                    given_up[output.index] = move
                else:
                    refresh = refresh or trouble.to_refresh(now, timeout)
            if len(placed) + len(given_up) < len(job.outputs):
                stale = refresh or _needs_result(job)
                if not refresh:
                    tries = await self._until_the_next_try(job, "its output", tries, trouble, answer)
        for move in given_up.values():
            return replace(move, outputs=_in_order(placed))
        return await self._finish(job, list(_in_order(placed)))

    async def _until_the_next_try(
        self, job: Job, what: str, tries: int, trouble: rules.DownloadTrouble, answer: str
    ) -> int:
        """Wait as long as so many tries in vain ask for, and let it be seen; return how many they are now."""
        seconds, now = backoff(tries, self._tools.chance), self._context.now()
        if tries:  # a first one is soon over
            left = (now if trouble.since is None else trouble.since) + self._context.retry.fetch_timeout - now
            self._context.tell_wait(job, what, tries + 1, answer, seconds, left)
        await asyncio.sleep(seconds)
        return tries + 1

    async def _no_result(self, trouble: rules.DownloadTrouble, got: UrlRefused | Interrupted) -> Move | None:
        """Return what becomes of a job whose result cannot be asked for again; None: it is tried on.

        Where the API answers nobody, that is its silence, which is waited for under `patience`.
        """
        now, timeout = self._context.now(), self._context.retry.fetch_timeout
        if isinstance(got, Interrupted) and trouble.is_late(now, timeout) and not await self._context.api_answers():
            return None
        return rules.given_up(trouble, got, now, timeout, asked_anew=True)

    async def _finish(self, job: Job, placed: list[Output]) -> Move:
        size = sum(output.bytes or 0 for output in placed)
        self.usual_bytes += (size - self.usual_bytes) * (0.1 if self.usual_bytes else 1.0)
        if len(placed) > 1:
            await asyncio.to_thread(self._write_sidecars, job, placed)
        return Move(State.DONE, outputs=tuple(placed), billed_usd=job.billed_usd)

    def _write_sidecars(self, job: Job, placed: Sequence[Output]) -> None:
        for output in placed:
            content = sidecar(job, output, len(placed), self._tools.origin)
            self._tools.store.write_sidecar(sidecar_file(output.file or ""), content, f"{job.id}-{output.index}.json")

    async def _try(self, flight: Flight, job: Job, output: Output) -> Output | Failed:
        """Fetch an output, and place it; where it is the only one, with its sidecar."""
        slow_after = self._context.retry.fetch_timeout
        async with self._downloads:  # not held while a dead URL is waited for
            stem = stem_of(job, output)
            store, flights = self._tools.store, self._context.flights

            def place(got: Fetched, stem: str) -> Output:
                file = f"{stem}.{got.media.extension}"
                placed = got.output(output, file, self._tools.clock.now())
                said = sidecar(job, placed, 1, self._tools.origin) if len(job.outputs) == 1 else None
                store.place(got.part, file, job.id, said)
                return placed

            def place_if_free(got: Fetched) -> Output | Fetched:
                if not flights.claim(flight, stem) or store.taken(f"{stem}.{got.media.extension}"):
                    return got
                return place(got, stem)

            key = f"{job.id}-{output.index}"
            got = await fetch(output.url, self._tools.wire, store, key, place_if_free, slow_after)
            if isinstance(got, Fetched):  # the ledger knows whose it is, or a job at work that it will be
                mine = flights.claim(flight, stem)
                name = await self._tools.make_room(stem, job.id) if mine else f"{stem}~{job.id}"
                try:
                    return await asyncio.to_thread(place, got, name)
                except OSError as error:
                    if error.errno not in FULL_HANDED:
                        raise
                    return Interrupted(str(error))
            return got

    async def _renew(self, job: Job) -> Job | Move | UrlRefused | Interrupted:
        """Ask for the result again: its URLs may be fresh."""
        request = await self._tools.reference(job)
        reply = await self._reader.ask(self._tools.api.result(request, self._tools.store.parts), job, request)
        match reply:
            case Finished(urls) if len(urls) >= max(1, len(job.outputs)):
                fresh = tuple(Output(index, url) for index, url in enumerate(urls, start=1))
                billed = job.billed_usd if reply.billed_usd is None else reply.billed_usd
                return replace(job, outputs=fresh, billed_usd=billed)
            case Finished() | Completed():
                return UrlRefused("the result has no output for it")
            case GenerationFailed() | Cancelled():
                return Move(State.FAILED, FailureKind.EXPIRED, "the server has no output for this request any more")
            case Missing(message):
                return UrlRefused(message)
            case _:
                return Interrupted(f"the result cannot be had: {words_of(reply)}")


def _troubled(
    trouble: rules.DownloadTrouble, got: Failed, now: float, *, asked_anew: bool = False
) -> rules.DownloadTrouble:
    """Return the trouble of an output with one more failure of this form."""
    match got:
        case UrlRefused():
            return replace(trouble, refreshed=trouble.refreshed or asked_anew).dead(now)
        case Wrong(digest, _):
            return trouble.wrong(digest, now)
        case Interrupted() | UrlUnusable():
            return trouble.interrupted(now)
        case _:
            assert_never(got)


def _in_order(placed: Mapping[int, Output]) -> tuple[Output, ...]:
    return tuple(placed[index] for index in sorted(placed))


def _needs_result(job: Job) -> bool:
    """Return whether a job's URLs are not known, or are what the ledger keeps of a data URI: all but its data."""
    return not job.outputs or any(one.url.startswith("data:") and one.url.endswith(",") for one in job.outputs)
