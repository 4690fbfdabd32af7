"""How many files and connections this process may have open at once, and what a run makes of few."""

import resource
from contextlib import suppress
from typing import Final

from batcher.errors import WrongUse

LEAST: Final = 64
"""Descriptors that a run needs: the ledger, the log, the loop, a few downloads and a few requests."""
_ENOUGH: Final = 1024
"""Descriptors with which connections need no bound: 200 submissions, some hundred looks, 16 downloads."""
_OWN: Final = 44
"""Descriptors for what is no connection: the ledger's files, folders, outputs that are being written."""
_POOLS: Final = 3
"""Pools of connections that share the descriptors that a process may open."""


def raise_limit() -> int:
    """Allow this process as many open files as the system lets it have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems name a limit that they do not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def check() -> None:
    """Raise WrongUse if a run could not have as many files open as it needs."""
    if (limit := raise_limit()) < LEAST:
        raise WrongUse(
            f"this process may have only {limit} files open at once, and a run needs {LEAST}",
            "raise the limit in this shell: ulimit -n 1024",
        )


def connections() -> int:
    """Return how many connections each pool of a wire may have; 0: any number."""
    limit = raise_limit()
    return 0 if limit >= _ENOUGH else max(4, (limit - _OWN) // _POOLS)
