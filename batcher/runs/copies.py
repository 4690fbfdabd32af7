"""Tells an older copy of a run's ledger from the newest one, by what its witnesses have seen."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from batcher.clock import rfc3339
from batcher.events import Noted
from batcher.ledger.witness import in_log, in_state_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batcher.ledger.witness import Seen
    from batcher.runs.run import Run


class Copies:
    """What is known of copies of one run directory."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.rebuilt = False
        """The ledger was just made anew from its sidecars."""

    async def left_behind(self) -> str | None:
        """Say whether this ledger is an older copy of one that went on; what that submitted is uncertain here.

        It is remembered until `accept_as_is`. A run without a witness on this machine is a line in the log.
        """
        run = self._run
        meta = await run.meta()
        if meta.get("moved"):
            return str(meta["moved"])
        last = [next(one, None) for one in self._witnesses(backwards=True)]
        gap = await run.ledger.behind(self._witnesses(), last, str(meta.get("accepted_as_is") or ""))
        if gap is None:
            await self._note_strange_place(meta, seen=last[0] is not None)
            return None
        if self.rebuilt and not gap.uncertain:  # all that was submitted is here again
            await self.accept_as_is()
            return None
        message = (
            f"this ledger is an older copy: {gap.uncertain + gap.others} submissions were made that it does not know "
            f"({gap.uncertain} of jobs that it would submit again; these are now uncertain)"
        )
        await run.note({"moved": message})
        return message

    async def accept_as_is(self) -> None:
        """Go on with an older copy at the user's word. What a clock that was ahead has stamped is accepted with it."""
        seen = (one.at for witness in self._witnesses() for one in witness)
        latest = max(seen, default="")
        await self._run.note({"moved": None, "accepted_as_is": max(latest, rfc3339(self._run.parts.clock.now()) or "")})

    def _witnesses(self, *, backwards: bool = False) -> list[Iterator[Seen]]:
        """Give what each witness has seen: the user's state directory, then the log."""
        run = self._run
        found = [in_log(run.out / "run.jsonl", backwards=backwards)]
        if run.ledger.witness:
            found.insert(0, in_state_file(run.ledger.witness.file, backwards=backwards))
        return found

    async def _note_strange_place(self, meta: Mapping[str, Any], *, seen: bool) -> None:
        run, host, known = self._run, platform.node(), meta.get("host")
        if not seen and await run.ledger.ask("any_attempt"):
            where = f"; it was last worked on by {known}" if known and known != host else ""
            words = f"this machine has no witness of what this run submitted{where}"
            await run.ledger.say(Noted(run.parts.clock.now(), words))
        if known != host:
            await run.note({"host": host})
