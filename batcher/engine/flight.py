"""Everything kept in memory of a job in flight, in one object. Decides nothing and sends nothing."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batcher.engine.rules import Watch
from batcher.job import IN_FLIGHT, Job, State

_STARTING: Final = frozenset({State.PENDING, State.SUBMITTING})


@dataclass(slots=True)
class Watched:
    """What is known of a running job between two checks. Times are loop seconds."""

    watch: Watch
    begun: float
    """When it was first watched by this start."""
    age: float
    """Seconds since it was accepted, at that time."""
    fresh: bool
    """It was accepted by this start, so its age does not depend on the wall clock."""
    tells: bool
    """Its latency can be learned: its age is known, and the process was never suspended."""
    first: bool = True
    """The next check is its first."""
    before: float = 0.0
    """Its age in seconds when it was last seen at work."""
    amiss: str = ""
    """What the last check was answered, if that does not say how far the job is."""
    tries: int = 0
    """Such answers in a row."""

    def age_at(self, now: float) -> float:
        """Return the seconds since the job was accepted."""
        return self.age + now - self.begun


@dataclass(slots=True, eq=False)
class Flight:
    """A job from the moment it is handed out until it rests."""

    job: Job
    task: asyncio.Task[None] | None = None
    """Drives it; None while it waits for its next check."""
    timer: asyncio.TimerHandle | None = None
    """Goes off at its next check."""
    next: Job | None = None
    """The job as it is to be driven again, once its task has ended."""
    body: bytes | None = None
    """The prepared request, until it is sent."""
    accepted_now: bool = False
    """This start submitted it, and it has not been watched yet."""
    watched: Watched | None = None
    """Set while it is at the server."""
    awaits_outputs: bool = False
    """It is completed and only its outputs are late, so it occupies no slot of the server."""
    seen_at_work: float | None = None
    """Its age in seconds when a check last said that it had not ended."""
    is_scout: bool = False
    """It is checked early, for what it tells of the latency of others."""
    is_held: bool = False
    """It waits for what the scouts tell."""
    names: tuple[str, ...] = ()
    """File names without extension that it has claimed."""

    @property
    def image_bytes(self) -> int:
        """The bytes of the local images in its request."""
        return sum(image.bytes for image in self.job.spec.images)


class Flights:
    """The jobs in flight by id, with the sums that are asked for at every step."""

    def __init__(self) -> None:
        self.states: Counter[State] = Counter()
        """Jobs in each state."""
        self.awaiting_outputs = 0
        """Jobs that occupy no slot of the server, because only their outputs are late."""
        self.starting_bytes = 0
        """Bytes of the images of jobs that are not accepted yet."""
        self._by_id: dict[str, Flight] = {}
        self._names: dict[str, Flight] = {}
        """Names of files that are being written, which the ledger does not know yet."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._by_id.values()))

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._by_id

    def get(self, job_id: str) -> Flight | None:
        """Return a job's flight, or None if it is not in flight."""
        return self._by_id.get(job_id)

    @property
    def starting(self) -> int:
        """Jobs that are not accepted yet."""
        return self.states[State.PENDING] + self.states[State.SUBMITTING]

    @property
    def occupying(self) -> int:
        """Jobs that may occupy a slot of the server, or are about to."""
        return sum(self.states[state] for state in IN_FLIGHT) + self.states[State.PENDING] - self.awaiting_outputs

    @property
    def running(self) -> int:
        """Jobs at the server that occupy a slot of it."""
        return self.states[State.RUNNING] - self.awaiting_outputs

    def add(self, job: Job) -> Flight:
        """Add a job that is not in flight."""
        flight = self._by_id[job.id] = Flight(job)
        self._count(flight, 1)
        return flight

    def update(self, flight: Flight, job: Job) -> None:
        """Record what a job is now."""
        self._count(flight, -1)
        flight.job = job
        self._count(flight, 1)

    def remove(self, flight: Flight) -> None:
        """Forget a job, with the names it has claimed."""
        del self._by_id[flight.job.id]
        self._count(flight, -1)
        self.has_outputs(flight)
        for name in flight.names:
            del self._names[name]

    def _count(self, flight: Flight, by: int) -> None:
        self.states[flight.job.state] += by
        if flight.job.state in _STARTING:
            self.starting_bytes += by * flight.image_bytes

    def lacks_outputs(self, flight: Flight) -> None:
        """Record that only the outputs of a job are late."""
        self.awaiting_outputs += not flight.awaits_outputs
        flight.awaits_outputs = True

    def has_outputs(self, flight: Flight) -> None:
        """Record that a job does not wait for its outputs, or no longer."""
        self.awaiting_outputs -= flight.awaits_outputs
        flight.awaits_outputs = False

    def claim(self, flight: Flight, name: str) -> bool:
        """Claim a file name without extension; return whether it is this job's. Safe to call from a thread."""
        owner = self._names.setdefault(name, flight)
        if owner is flight and name not in flight.names:
            flight.names += (name,)
        return owner is flight
