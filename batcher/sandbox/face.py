"""What a face of the sandbox is: it reads a request in a vendor's protocol, asks the world, words the answer. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from batcher.sandbox.replies import Reply
from batcher.sandbox.world import Request, World


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it comes: its path in parts, each decoded by itself, for an id may have slashes of its own."""

    method: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: object = None
    """JSON, or None where there is none."""


def ask(method: str, target: str, headers: Mapping[str, str], body: object = None) -> Ask:
    """Return what is asked for by a method and a target, its path as it was sent."""
    url = urlsplit(target)
    parts = tuple(unquote(part) for part in url.path.split("/") if part)
    return Ask(method, parts, dict(parse_qsl(url.query)), headers, body)


@dataclass(frozen=True, slots=True)
class Shell:
    """What the face needs of whoever serves it."""

    now: float
    """Seconds since 1970."""
    base: str
    """The URL by which the sandbox is reached."""
    file: Callable[[Request, int, str], str] = field(repr=False)
    """(request, number of the output from 1, extension) -> its URL."""


class Face(Protocol):
    """A vendor's protocol, as the sandbox speaks it."""

    name: str

    def answer(self, world: World, asked: Ask, shell: Shell) -> Reply | None:
        """Return the answer to a request; None where the protocol has no such path."""
        ...

    def result_of(self, asked: Ask) -> str | None:
        """Return the id of the request whose result is asked for, None where none is."""
        ...
