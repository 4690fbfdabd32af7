"""`batcher sandbox`: serves the remote API on loopback, for rehearsal and tests."""

import typer


def sandbox(context: typer.Context) -> None:
    """Serve a stand-in for the remote API on loopback; `batcher sandbox --help` lists its options."""
    from batcher.sandbox.__main__ import main

    main(list(context.args))
