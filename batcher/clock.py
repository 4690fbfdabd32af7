"""Wall time and chance; nothing else in the package asks the machine for either."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Clock:
    """Stamps, in seconds since 1970 UTC. Waits are the event loop's, never this clock's."""

    wall: Callable[[], float] = time.time

    def now(self) -> float:
        """Return the wall time, in seconds since 1970 UTC."""
        return self.wall()


_LATEST: Final = 1e11
"""Seconds: in the year 5138. A larger number is of milliseconds."""


def rfc3339(stamp: float | None) -> str | None:
    """Write a stamp (seconds since 1970) as RFC 3339 in UTC, to the millisecond."""
    if stamp is None:
        return None
    return datetime.fromtimestamp(stamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of_day(stamp: float) -> str:
    """Write a stamp (seconds since 1970) as this machine's time of day."""
    return datetime.fromtimestamp(stamp).astimezone().strftime("%H:%M:%S")


def next_at(now: float, time_of_day: str) -> float:
    """Return the stamp at which this machine's clocks show `HH:MM` next, after `now` (seconds since 1970)."""
    hour, minute = map(int, time_of_day.split(":"))
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=0, microsecond=0)  # noqa: DTZ006 - local
    day = today if today.timestamp() > now else today + timedelta(days=1)
    return day.timestamp()


def from_rfc3339(text: object) -> float | None:
    """Read a server's stamp (RFC 3339 text, or seconds or milliseconds since 1970); None where it is neither."""
    if isinstance(text, bool):
        return None
    try:
        if isinstance(text, int | float):
            seconds = float(text) / 1000 if text > _LATEST else float(text)
        else:
            stamp = datetime.fromisoformat(str(text))
            seconds = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < _LATEST else None


Chance = random.Random
"""Where jitter comes from; deciders are handed one."""


def chance(seed: int | None = None) -> Chance:
    """Make a source of chance, for jitter; with a seed it repeats itself."""
    return random.Random(seed)  # noqa: S311 - jitter is no secret
