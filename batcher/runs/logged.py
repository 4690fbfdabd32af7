"""Works on a run that is open, with its log: what every way of running it does before and after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batcher.errors import TokenMissing
from batcher.runs.run import Run
from batcher.show.log import Log


@asynccontextmanager
async def logged(run: Run) -> AsyncIterator[None]:
    """Find the way to the API if there is work, then write what happens into the run's log until the block is left.

    Raises TokenMissing, which is noted as the reason why this start could not begin.
    """
    if await run.has_work():
        try:
            await run.directory.connect()
        except TokenMissing as missing:
            await run.refuse("token", str(missing))
            raise
    log = Log(run.directory.out, run.directory.secret)
    run.directory.listen(log)
    try:
        yield
    finally:
        log.close()
