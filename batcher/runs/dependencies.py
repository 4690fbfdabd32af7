"""What a run is made of where the world outside begins; tests bring their own time and wire."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from batcher.clock import Chance, Clock, chance
from batcher.ledger.database import Database, open_threaded
from batcher.ledger.submission_journal import state_folder
from batcher.provider import PROVIDERS
from batcher.provider.calls import Wire
from batcher.provider.embedded_sandbox import sandbox
from batcher.provider.http import HttpWire, Network
from batcher.provider.proxies import Proxies, of_environment
from batcher.runs.descriptors import connections
from batcher.settings import SANDBOX, Endpoint


def http_wire(endpoint: Endpoint) -> Wire:
    """Make the real wire to the API, through the proxy that the environment names; to the sandbox through none."""
    renew = endpoint.renew
    return HttpWire(
        endpoint.base,
        endpoint.token.reveal(),
        (lambda: renew().reveal()) if renew else None,
        account=endpoint.account,
        traits=PROVIDERS[endpoint.vendor].traits,
        network=Network(Proxies() if endpoint.provider == SANDBOX else of_environment(), connections()),
    )


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The database, the wire, the sandbox, time and chance."""

    database: Callable[[Path], Awaitable[Database]] = open_threaded
    wire: Callable[[Endpoint], Wire] = http_wire
    sandbox: Callable[[Path, str], AbstractAsyncContextManager[Endpoint]] = sandbox
    state: Callable[[], Path] = lambda: state_folder(os.environ)
    """The user's state directory, where the journals of submissions are."""
    detects_suspends: bool = True
    """Notice when nothing could be heard for a while; simulated time has no such whiles of its own."""
    asked_every: float = 0.5
    """Seconds between looks for what other terminals ask."""
    clock: Clock = field(default_factory=Clock)
    chance: Chance = field(default_factory=chance)
