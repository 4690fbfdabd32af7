"""Looks for submissions whose answers were lost in the vendor's list of past requests, and adopts those found.

A request is adopted only where it certainly is the attempt's own. That it is not listed proves nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from batcher.clock import rfc3339
from batcher.engine.context import Tools
from batcher.engine.request_matching import (
    CLOCKS_DIFFER,
    FoundRequest,
    LostAttempt,
    Match,
    by_time,
    matched,
    own_requests,
    to_look_at,
)
from batcher.hosting.inline import ImageNotUsable, body
from batcher.job import Job, Move, State
from batcher.ledger.ledger import Overtaken
from batcher.ledger.request_register import RequestRegister
from batcher.provider.provider import RequestHistory
from batcher.provider.replies import PastPage, PastRequest, Unauthorized
from batcher.runs.run_directory import RunDirectory

ONCE_MORE_AFTER: Final = 30.0
"""Seconds after the end of a run's work at which the list is read once more: records come late."""
LONGEST: Final = 180.0
"""Seconds that one search may take: a list that does not answer must hold up no run. The next search goes on."""
_RECENT: Final = 86_400.0
"""Seconds after a submission for which a run waits to look once more; at each start it is looked for in any case. Also
how long after the last intent the list is read: a request that was sent then may have ended much later."""
_MOST_PAGES: Final = 200
"""Pages of a list that are read at once: 20,000 requests."""
_AT_ONCE: Final = 4
"""Requests that are asked at the same time what was asked for: each answer may carry its images."""


class LostRequests:
    """Of one start of a run."""

    def __init__(
        self, directory: RunDirectory, tools: Tools, history: RequestHistory, register: RequestRegister
    ) -> None:
        self._directory = directory
        self._tools = tools
        self._history = history
        self._register = register
        self._others: set[str] = set()
        """Requests that were looked at and are none of ours."""
        self._unreadable = False
        """The list may not be read with this token."""
        self._told = False
        """The user knows that the list could not be read."""

    async def uncertain(self) -> list[Job]:
        """Return the jobs whose submissions may have been accepted."""
        return await self._directory.ledger.under_way(State.UNCERTAIN)

    async def may_come_soon(self) -> bool:
        """Return whether some may still come to be listed soon, as far as the list can be read."""
        since = self._tools.clock.now() - _RECENT
        return not self._unreadable and any((job.submitted_at or 0.0) >= since for job in await self.uncertain())

    async def find(self) -> list[FoundRequest]:
        """Look for all of them once; return those that were found. Ends early where the list does not answer."""
        found: list[FoundRequest] = []
        try:
            async with asyncio.timeout(LONGEST):
                await self._find(found)
        except TimeoutError:
            await self._directory.note_down(f"the list of past requests was not read through within {LONGEST:.0f} s")
        return found

    async def _find(self, found: list[FoundRequest]) -> None:
        by_model: defaultdict[str, list[Job]] = defaultdict(list)
        for job in await self.uncertain():
            by_model[job.spec.model].append(job)
        for model, jobs in by_model.items():
            for group in by_time(jobs, _RECENT):
                await self._find_of(model, group, found)

    async def _find_of(self, model: str, jobs: Sequence[Job], found: list[FoundRequest]) -> None:
        offer = await self._tools.offer(model)
        listed, complete = await self._listed(offer.model_id, jobs)
        if not listed:
            return
        lost = [await self._attempt(job, offer.images) for job in jobs]
        ids = [one.request_id for one in listed]
        known = {row[0] for row in await self._directory.ledger.ask("known_requests", ids=json.dumps(ids))}
        others = await asyncio.to_thread(self._register.of_others, set(ids) - known)
        if others:
            count = f"{len(others):,}"
            await self._directory.note_down(f"of the past requests listed, {count} are other runs' of this machine")
        known |= others
        near = to_look_at(lost, listed, known | self._others)
        matches, read_all = await self._matches(offer.model_id, lost, near)
        now = self._tools.clock.now()
        if any(one.job.seed is None for one in lost) and await asyncio.to_thread(self._register.others_at_work, now):
            complete = False  # the answer that another run waits for may be about one of these
        own = own_requests(lost, matches, complete=complete and read_all)
        for job in jobs:
            if not (request := own.get(job.id)):
                continue
            if await asyncio.to_thread(self._register.claim, request.request_id):
                found += await self._adopt(job, request)
        if all(attempt.job.seed is not None for attempt in lost):
            self._others |= {one.request.request_id for one in matches if not one.jobs}

    async def _attempt(self, job: Job, images: frozenset[str]) -> LostAttempt:
        """Return what is known of a lost attempt; where no seed tells it, with all that was sent, built once more."""
        inputs = None
        if job.seed is None:
            try:
                inputs = json.loads(await asyncio.to_thread(body, job.spec, self._tools.root))
            except (ImageNotUsable, OSError, ValueError):
                inputs = None
        return LostAttempt(job, self._history.lists_within, images, inputs)

    async def _listed(self, model_id: str, jobs: Sequence[Job]) -> tuple[list[PastRequest], bool]:
        """Return the requests listed of about the time of these jobs, without what was asked for.

        Tell too whether all of them could be read.
        """
        times = [job.submitted_at or 0.0 for job in jobs]
        since, until = min(times) - CLOCKS_DIFFER, max(times) + _RECENT
        end = until if until < self._tools.clock.now() else None
        listed: dict[str, PastRequest] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = self._history.read(await self._tools.wire.send(self._history.page(model_id, since, end, cursor)))
            if not isinstance(page, PastPage):
                self._unreadable = isinstance(page, Unauthorized)
                await self._tell_unreadable(f"the list of past requests could not be read: {page.message}")
                return list(listed.values()), False
            listed |= {one.request_id: one for one in page.requests}
            cursor = page.cursor
            if cursor is None or not page.requests:
                return list(listed.values()), True
        await self._directory.note_down(
            f"the list of past requests since {rfc3339(since)} has more than {len(listed):,}: the rest was not read"
        )
        return list(listed.values()), False

    async def _tell_unreadable(self, message: str) -> None:
        """Warn the user once that lost submissions stay uncertain; later times go into the log alone."""
        await (self._directory.note_down(message) if self._told else self._directory.warn(message))
        self._told = True

    async def _matches(
        self, model_id: str, lost: Sequence[LostAttempt], near: Sequence[PastRequest]
    ) -> tuple[list[Match], bool]:
        """Return what these requests are of, a few at a time; tell too whether all could be read.

        Where each attempt has a seed, the search ends as soon as each is found.
        """
        matches: list[Match] = []
        whole, seeded = True, all(attempt.job.seed is not None for attempt in lost)
        for start in range(0, len(near), _AT_ONCE):
            some = near[start : start + _AT_ONCE]
            for one in await asyncio.gather(*(self._match(model_id, lost, request) for request in some)):
                if one is None:
                    whole = False
                else:
                    matches.append(one)
            if seeded and len({job for one in matches for job in one.jobs}) == len(lost):
                break
        return matches, whole

    async def _match(self, model_id: str, lost: Sequence[LostAttempt], request: PastRequest) -> Match | None:
        """Return the attempts that a request may be of, None where what was asked for cannot be had."""
        page = self._history.read(await self._tools.wire.send(self._history.one(model_id, request.request_id)))
        if not isinstance(page, PastPage):
            return None
        listed = (one for one in page.requests if one.request_id == request.request_id and one.inputs is not None)
        return next((matched(lost, one) for one in listed), None)

    async def _adopt(self, job: Job, request: PastRequest) -> list[FoundRequest]:
        message = f"found in the list of past requests, sent at {rfc3339(request.sent_at)}"
        move = Move(State.RUNNING, message=message, request_id=request.request_id)
        try:
            return [FoundRequest(await self._directory.ledger.record(job, move), job.kind)]
        except Overtaken:  # by the user, from another terminal
            return []
