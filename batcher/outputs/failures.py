"""In which ways an output may fail to arrive, as a closed set of values. Knows no HTTP and no disk."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UrlRefused:
    """The URL is refused."""

    message: str


@dataclass(frozen=True, slots=True)
class UrlUnusable:
    """The URL leads nowhere that a file is fetched from, however often it is tried."""

    message: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """Bytes came, and are not what they should be."""

    sha256: str
    message: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """It did not arrive; another try may do better."""

    message: str


Failed = UrlRefused | UrlUnusable | Wrong | Interrupted
