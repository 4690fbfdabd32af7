"""Where a run stands, as a value: what `status` prints, `summary.json` holds and programs are given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batcher.errors import Stopped


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run costs, in USD."""

    estimated: float
    """Of all its jobs."""
    billed: float
    reserved: float
    """Of what was submitted, and not billed yet."""
    at_risk: float
    """Of what is uncertain: it may be billed yet."""
    worst_case: float
    """The most that it may have cost by now."""
    without_bill: float
    """Of what has its results, and no bill."""
    limit: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """A job that failed, or is uncertain, in one way."""

    job_id: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class PaceNow:
    """How fast a run at work goes."""

    per_minute: float
    """Jobs that settle."""
    left_seconds: tuple[float, float] | None
    """The least and the most that it may still take; None: not known yet."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """Jobs and cost by the values of a variable."""

    variable: str
    values: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands."""

    name: str | None
    provider: str | None
    """`sandbox`, or the API's base URL; None: nothing was begun."""
    vendor: str | None
    total: int
    """Jobs that the manifest names."""
    selected: int
    """Of these, what the last start worked on."""
    waiting: int
    """Of the selected, what is still to be submitted."""
    whole: str | None
    """The command that runs what the selection left out."""
    states: Mapping[str, int]
    unlisted: int
    """Jobs that the manifest no longer names."""
    rejected: int
    """Rows that were skipped for their faults."""
    errors: Mapping[str, int]
    """Jobs by kind of failure."""
    cost_usd: RunCost
    files: int
    bytes: int
    requests: int
    """Calls to the API so far."""
    stopped: Stopped | None
    """Why the last start ended before its work was done."""
    examples: Mapping[str, Example]
    """By kind of failure."""
    at_work: bool = False
    """A run works on it now."""
    pace: PaceNow | None = None
    by: ByValue | None = field(default=None)

    def working(self, pace: PaceNow) -> "RunStatus":
        """Return it for a run that is at work: how an earlier start ended is no news of this one."""
        return replace(self, at_work=True, stopped=None, pace=pace)

    def to_json(self) -> dict[str, Any]:
        """Return it as `status --json` prints it."""
        found = asdict(self)
        if self.stopped:
            found["stopped"].pop("exit_code")
        if self.by is None:
            del found["by"]
        return found
