"""What the shell completes: run directories, states, kinds, models. Quick, and silent where it knows nothing."""

from collections.abc import Iterator
from pathlib import Path


def out(incomplete: str) -> Iterator[str]:
    """Complete a run directory: what is typed, and below it up to two levels what holds a ledger."""
    typed = Path(incomplete)
    base = typed if incomplete.endswith("/") or not incomplete else typed.parent
    for depth in ("*/ledger.sqlite", "*/*/ledger.sqlite"):
        for ledger in sorted(base.glob(depth))[:200]:
            name = str(ledger.parent)
            if name.startswith(incomplete.removeprefix("./")):
                yield name


def state(incomplete: str) -> Iterator[str]:
    """Complete a state."""
    from batcher.job import State

    return (one.value for one in State if one.startswith(incomplete))


def kind(incomplete: str) -> Iterator[str]:
    """Complete a kind of failure."""
    from batcher.job import Kind

    return (one.value for one in Kind if one.startswith(incomplete))


def model(incomplete: str) -> Iterator[str]:
    """Complete a bundled model."""
    from batcher.catalog import bundled

    return (one for one in bundled() if one.startswith(incomplete))
