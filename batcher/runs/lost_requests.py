"""Looks for submissions whose answers were lost in the vendor's list of past requests, and adopts those found.

A request is adopted only where it certainly is the attempt's own. That it is not listed proves nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from batcher.clock import rfc3339
from batcher.engine.found import CLOCKS_DIFFER, Found, LostAttempt, own_requests, to_look_at
from batcher.hosting.inline import NotUsable, body
from batcher.job import Job, Move, State
from batcher.ledger.ledger import Overtaken
from batcher.provider.replies import PastPage, PastRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batcher.engine.legs import Tools
    from batcher.ledger.request_register import RequestRegister
    from batcher.provider.provider import History
    from batcher.runs.run import Run

ONCE_MORE_AFTER: Final = 30.0
"""Seconds after the end of a run's work at which the list is read once more: records come late."""
_RECENT: Final = 86_400.0
"""Seconds after a submission for which a run waits to look once more; at each start it is looked for in any case."""
_MOST_PAGES: Final = 200
"""Pages of a list that are read at once: 20,000 requests."""
_MOST_PAYLOADS: Final = 2_000
"""Requests that are asked one by one what was asked for, in one search."""


class LostRequests:
    """Of one start of a run."""

    def __init__(self, run: Run, tools: Tools, history: History, register: RequestRegister) -> None:
        self._run = run
        self._tools = tools
        self._history = history
        self._register = register
        self._others: set[str] = set()
        """Requests that were looked at and are none of ours."""

    async def uncertain(self) -> list[Job]:
        """Return the jobs whose submissions may have been accepted."""
        return await self._run.ledger.under_way(State.UNCERTAIN)

    async def any_recent(self) -> bool:
        """Return whether some may still come to be listed soon."""
        since = self._tools.clock.now() - _RECENT
        return any((job.submitted_at or 0.0) >= since for job in await self.uncertain())

    async def find(self) -> list[Found]:
        """Look for all of them once; return those that were found."""
        by_model: defaultdict[str, list[Job]] = defaultdict(list)
        for job in await self.uncertain():
            by_model[job.spec.model].append(job)
        found: list[Found] = []
        for model, jobs in by_model.items():
            found += await self._find_of(model, jobs)
        return found

    async def _find_of(self, model: str, jobs: Sequence[Job]) -> list[Found]:
        offer = await self._tools.offer(model)
        since = min(job.submitted_at or 0.0 for job in jobs) - CLOCKS_DIFFER
        listed = await self._listed(offer.model_id, since)
        if not listed:
            return []
        lost = [await self._attempt(job, offer.images) for job in jobs]
        ids = [one.request_id for one in listed]
        known = {row[0] for row in await self._run.ledger.ask("known_requests", ids=json.dumps(ids))}
        known |= await asyncio.to_thread(self._register.of_others, set(ids) - known)
        near = to_look_at(lost, listed, known | self._others)
        asked = [await self._whole(offer.model_id, one) for one in near[:_MOST_PAYLOADS]]
        whole = [one for one in asked if one]
        adopted: list[Found] = []
        for job_id, request in own_requests(lost, whole).items():
            job = next(one for one in jobs if one.id == job_id)
            if await asyncio.to_thread(self._register.claim, request.request_id):
                adopted += await self._adopt(job, request)
        self._others |= {one.request_id for one in whole if self._is_nobodys(one, lost)}
        return adopted

    @staticmethod
    def _is_nobodys(request: PastRequest, lost: Sequence[LostAttempt]) -> bool:
        """Return whether a request need not be asked about again: each of these attempts has a seed of its own."""
        return request.inputs is not None and all(one.job.seed is not None for one in lost)

    async def _attempt(self, job: Job, images: frozenset[str]) -> LostAttempt:
        """Return what is known of a lost attempt; where no seed tells it, with all that was sent, built once more."""
        inputs = None
        if job.seed is None:
            try:
                inputs = json.loads(await asyncio.to_thread(body, job.spec, self._tools.root))
            except (NotUsable, OSError, ValueError):
                inputs = None
        return LostAttempt(job, self._history.lists_within, images, inputs)

    async def _listed(self, model_id: str, since: float) -> list[PastRequest]:
        """Return the requests listed since then, without what was asked for; none where the list cannot be read."""
        listed: dict[str, PastRequest] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = self._history.read(await self._tools.wire.send(self._history.page(model_id, since, cursor)))
            if not isinstance(page, PastPage):
                await self._run.note_down(
                    f"the list of past requests since {rfc3339(since)} could not be read: {page.message}"
                )
                break
            listed |= {one.request_id: one for one in page.requests}
            cursor = page.cursor
            if cursor is None or not page.requests:
                break
        return list(listed.values())

    async def _whole(self, model_id: str, request: PastRequest) -> PastRequest | None:
        """Return a request with what was asked for, None where that cannot be had."""
        page = self._history.read(await self._tools.wire.send(self._history.one(model_id, request.request_id)))
        if not isinstance(page, PastPage):
            return None
        return next((one for one in page.requests if one.request_id == request.request_id and one.inputs), None)

    async def _adopt(self, job: Job, request: PastRequest) -> list[Found]:
        message = f"found in the list of past requests, sent at {rfc3339(request.sent_at)}"
        move = Move(State.RUNNING, message=message, request_id=request.request_id)
        try:
            return [Found(await self._run.ledger.record(job, move), job.kind)]
        except Overtaken:  # by the user, from another terminal
            return []
