"""Wall time and chance; nothing else in the package asks the machine for either."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Stamps, in seconds since 1970 UTC. Waits are the event loop's, never this clock's."""

    wall: Callable[[], float] = time.time

    def now(self) -> float:
        """Give the wall time, in seconds since 1970 UTC."""
        return self.wall()


def rfc3339(stamp: float | None) -> str | None:
    """Write a stamp (seconds since 1970) as RFC 3339 in UTC, to the millisecond."""
    if stamp is None:
        return None
    return datetime.fromtimestamp(stamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: object) -> float | None:
    """Read a server's stamp (RFC 3339 text, or seconds or milliseconds since 1970); None where it is neither."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        return float(text) / 1000 if text > 1e11 else float(text)  # noqa: PLR2004 - year 5138 in seconds
    try:
        stamp = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


Chance = random.Random
"""Where jitter comes from; deciders are handed one."""


def chance(seed: int | None = None) -> Chance:
    """Make a source of chance, for jitter; with a seed it repeats itself."""
    return random.Random(seed)  # noqa: S311 - jitter is no secret
