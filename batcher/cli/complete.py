"""What the shell completes: run directories, states, kinds, models. Quick, and silent where it knows nothing."""

from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from pathlib import Path


def out(incomplete: str) -> Iterator[str]:
    """Complete a run directory: what holds a ledger, and begins as is typed or lies in a folder that does."""
    whole = not incomplete or incomplete.endswith("/")
    base, begun = (Path(incomplete), "") if whole else (Path(incomplete).parent, Path(incomplete).name)
    inner = "runs/*" if not begun else f"{escape(begun)}*/*"  # not the whole of a home directory
    dot = "./" if incomplete.startswith("./") else ""
    with suppress(OSError):  # what cannot be read completes nothing
        for pattern in (f"{escape(begun)}*/ledger.sqlite", f"{inner}/ledger.sqlite"):
            for ledger in sorted(base.glob(pattern))[:200]:
                yield f"{dot}{ledger.parent}"


def state(incomplete: str) -> Iterator[str]:
    """Complete a state."""
    from batcher.job import State

    return (one.value for one in State if one.startswith(incomplete))


def kind(incomplete: str) -> Iterator[str]:
    """Complete a kind of failure."""
    from batcher.job import FailureKind

    return (one.value for one in FailureKind if one.startswith(incomplete))


def provider(incomplete: str) -> Iterator[str]:
    """Complete a provider."""
    from batcher.provider import PROVIDERS

    return (one for one in PROVIDERS if one.startswith(incomplete))


def model(incomplete: str) -> Iterator[str]:
    """Complete a bundled model."""
    from batcher.catalog import bundled

    return (one for one in bundled() if one.startswith(incomplete))
