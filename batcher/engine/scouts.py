"""The few jobs that are looked at while nothing is known of latencies; the others wait for what these tell."""

from typing import Final

SCOUTS: Final = 64
UNTOLD: Final = 20
"""Of the others, looks a second while the scouts tell nothing."""


class Scouts:
    """Holds jobs back from being looked at until latencies are known.

    The first of many tell what all will take. Were each looked at to find it out, ten thousand would be asked for
    thousands of times a minute.
    """

    def __init__(self) -> None:
        self._jobs: set[str] = set()
        self._held: set[str] = set()
        self.told = False
        """Enough is known: nobody has to wait any more."""

    def hold(self, job_id: str) -> float | None:
        """Give the seconds until a job's turn, were nothing told until then; None: it is to be looked at as any."""
        if self.told or job_id in self._jobs:
            return None
        if len(self._jobs) < SCOUTS:
            self._jobs.add(job_id)
            return None
        self._held.add(job_id)
        return len(self._held) / UNTOLD

    def turn(self, job_id: str) -> None:
        """Take note that a job waits no more."""
        self._held.discard(job_id)

    def release(self) -> set[str]:
        """Give the jobs that wait for nothing any more, once enough is known."""
        free, self._held = (self._held, set()) if self.told else (set(), self._held)
        return free

    def left(self, job_id: str) -> None:
        """Take note that a job is not looked at any more: another one may tell in its place."""
        self._jobs.discard(job_id)
        self._held.discard(job_id)
