"""`--json` of `run` and `resume`: events, an object a line, the last of them however the command ends."""

import errno
import json
import sys
from dataclasses import asdict
from typing import Any, Final

from batcher.clock import Clock, rfc3339
from batcher.errors import (
    EXIT_BUG,
    EXIT_MANIFEST,
    EXIT_MISSING,
    EXIT_STOPPED,
    EXIT_TOKEN,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    SIGNAL_BASE,
    BatcherError,
    CopyInUse,
    LedgerInUse,
    LedgerUnreadable,
    ManifestFaulty,
    Signalled,
    Stopped,
    TokenMissing,
)
from batcher.events import Ended, Event
from batcher.terminal_text import command

_REASONS: Final = {
    EXIT_USAGE: "usage",
    EXIT_MANIFEST: "manifest",
    EXIT_MISSING: "not_found",
    EXIT_UNREACHABLE: "unreachable",
    EXIT_BUG: "bug",
    EXIT_STOPPED: "disk",
    EXIT_TOKEN: "token",
}
_OF_ERRORS: Final = {CopyInUse: "locked", LedgerInUse: "locked", LedgerUnreadable: "ledger"}


class JsonEvents:
    """Prints events as JSON lines. A listener."""

    _ended = False
    """The last one was printed, by whichever of these."""

    def __call__(self, event: Event) -> None:
        """Print an event."""
        facts: dict[str, Any] = asdict(event)
        if isinstance(event, Ended):
            JsonEvents._ended = True
            if event.stopped:
                facts["stopped"].pop("exit_code")
        facts["at"] = rfc3339(event.at)
        print(json.dumps({"event": type(event).__name__.lower(), **facts}, ensure_ascii=False), flush=True)

    def end(self, error: BaseException) -> None:
        """Print the last event of a start that could not begin, or that ended by a defect."""
        if not self._ended and not isinstance(error, BrokenPipeError):
            stopped = _stopped(error)
            self(Ended(Clock().now(), stopped.exit_code, stopped))


def _stopped(error: BaseException) -> Stopped:
    """Return an error as every run that stops is described; the command that goes on is the same one again."""
    again = command(*sys.argv[1:])
    why = error.summary if isinstance(error, ManifestFaulty) else str(error)
    match error:
        case KeyboardInterrupt():
            return Stopped("interrupted", "stopped before the work began", SIGNAL_BASE + 2, again, retryable=True)
        case Signalled():
            return Stopped("interrupted", why, error.exit_code, again, retryable=True)
        case TokenMissing(variable=name):
            return Stopped("token", why, error.exit_code, f"{name}=... {again}" if name else again, retryable=False)
        case BatcherError():
            reason = _OF_ERRORS.get(type(error)) or _REASONS.get(error.exit_code, "bug")
            return Stopped(reason, why, error.exit_code, again, retryable=reason in {"locked", "unreachable"})
        case OSError(errno=errno.ENAMETOOLONG):
            return Stopped("usage", why, EXIT_USAGE, again, retryable=False)
        case OSError():
            return Stopped("disk", why, EXIT_STOPPED, again, retryable=False)
        case _:
            return Stopped("bug", repr(error), EXIT_BUG, again, retryable=False)
