"""`batcher sandbox`: serves the remote API on loopback, for rehearsal and tests."""

import typer

from batcher.sandbox.__main__ import main


def sandbox(context: typer.Context) -> None:
    """Serve a stand-in for the remote API on loopback; `batcher sandbox --help` lists its options."""
    main(list(context.args))
