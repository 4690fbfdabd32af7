"""What can stop a run: what happened, where, the command that helps, and the exit code. Knows no room above."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

EXIT_OK: Final = 0
"""Every job is done."""
EXIT_SETTLED: Final = 1
"""Everything has settled; some jobs are failed, uncertain or cancelled."""
EXIT_USAGE: Final = 64
"""Wrong arguments. This and the codes below follow sysexits.h."""
EXIT_MANIFEST: Final = 65
"""Faults in the manifest."""
EXIT_MISSING: Final = 66
"""No such manifest or run directory."""
EXIT_UNREACHABLE: Final = 69
"""The API was out of reach for longer than the user waits."""
EXIT_BUG: Final = 70
"""A defect of this program."""
EXIT_STOPPED: Final = 75
"""Stopped with work left; the run can go on."""
EXIT_TOKEN: Final = 77
"""No token, or one that is refused."""
SIGNAL_BASE: Final = 128
"""The exit code of a run that a signal ended is this and the signal's number."""


class BatcherError(Exception):
    """Something stopped the command; the message says what, the hint what to do."""

    exit_code: ClassVar[int] = EXIT_BUG
    hint: str = ""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.hint = hint or self.hint


class WrongUse(BatcherError):
    """The arguments do not fit together."""

    exit_code = EXIT_USAGE


class NotMeant(WrongUse):
    """The user was asked, and said no."""


class WrongRun(WrongUse):
    """The run directory belongs to another provider or manifest."""


class NotFound(BatcherError):
    """The manifest or run directory does not exist."""

    exit_code = EXIT_MISSING


class LedgerUnreadable(BatcherError):
    """The ledger is corrupt, or was written by a newer version; it is left as it is."""

    exit_code = EXIT_MANIFEST


class LedgerInUse(BatcherError):
    """Another run is at work on this directory."""

    exit_code = EXIT_STOPPED


class CopyInUse(LedgerInUse):
    """Another copy of this run is at work, in another directory."""


class LedgerBroken(BatcherError):
    """The disk refused a write of the ledger: nothing more is sent."""

    exit_code = EXIT_STOPPED


class TokenMissing(BatcherError):
    """There is no API token."""

    exit_code = EXIT_TOKEN
    hint = "see that the token is the one of your account, or rehearse with --sandbox"

    def __init__(self, message: str = "", hint: str = "", variable: str = "") -> None:
        super().__init__(message, hint)
        self.variable = variable
        """Of the environment: where a token is put; empty where that is not known."""


class Unreachable(BatcherError):
    """The API could not be reached."""

    exit_code = EXIT_UNREACHABLE


class Signalled(BatcherError):
    """A signal came before the work began."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped before the work began", "nothing was sent; the same command goes on")
        self.exit_code = SIGNAL_BASE + number  # type: ignore[misc]  # by the signal


class CommandRefused(BatcherError):
    """The run at work could not do what was asked of it; it said why, and the exit code."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code  # type: ignore[misc]  # another process has decided it


class Bug(BatcherError):
    """A defect of batcher itself."""

    exit_code = EXIT_BUG


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a manifest, and what would be right."""

    file: str
    line: int
    """Where the row or key starts, from 1."""
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


class ManifestFaulty(BatcherError):
    """The manifest is wrong; nothing was sent."""

    exit_code = EXIT_MANIFEST

    def __init__(self, faults: Sequence[Fault], count: int, hint: str = "") -> None:
        super().__init__(f"{count} fault{'s' if count != 1 else ''} in the manifest; nothing was sent", hint)
        self.faults = tuple(faults)
        self.count = count

    @property
    def summary(self) -> str:
        """How many faults there are."""
        return super().__str__()

    def __str__(self) -> str:
        """Return the summary, and each fault on a line of its own."""
        more = [f"... and {self.count - len(self.faults):,} more"] if self.count > len(self.faults) else []
        return "\n".join([self.summary, *map(str, self.faults), *more])


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a run ended with work left, all of it safe."""

    reason: str
    message: str
    exit_code: int
    next: str
    """The command that goes on."""
    retryable: bool
    """Whether it helps to run that command as it is."""
