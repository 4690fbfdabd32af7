"""Starts the embedded sandbox as a process of its own, which ends when this one does, however that goes."""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from batcher.errors import Bug, WrongUse
from batcher.settings import SANDBOX, Endpoint, Secret


@asynccontextmanager
async def sandbox(folder: Path, vendor: str, options: tuple[str, ...] = ()) -> AsyncIterator[Endpoint]:
    """Serve a provider's protocol from this folder until the block is left; the pipe to the child closes with this.

    `BATCHER_SANDBOX_ARGS` says how the sandbox is to be, as `batcher sandbox` takes it: "--speed 20 --fault fail=0.1".
    """
    options = (*shlex.split(os.environ.get("BATCHER_SANDBOX_ARGS", "")), *options)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = folder / "sandbox.log"
    with os.fdopen(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "batcher.sandbox", "--protocol", vendor, "--dir", str(folder), "--until-stdin-ends", *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for the run, which decides when the sandbox ends
        )
    try:
        line = await child.stdout.readline() if child.stdout else b""
        base = line.decode().strip()
        if not base:
            said = log_file.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            if options:
                raise WrongUse(f"the sandbox did not start: {said}", "see: batcher sandbox --help")
            raise Bug(f"the sandbox did not start: {said}; see {log_file}")
        yield Endpoint(base=base, token=Secret(SANDBOX), provider=SANDBOX, vendor=vendor, account=base)
    finally:
        if child.stdin:
            child.stdin.close()
        try:
            async with asyncio.timeout(5):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
