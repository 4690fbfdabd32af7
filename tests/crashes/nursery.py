"""Commands that start at once: a process that has imported everything forks for each of them.

A child stops itself before its first step, so that a tracer can be there from the beginning; it then goes the way of
`python -m batcher`, to its end.
"""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self


class Child:
    """One command; what it says on stderr is in a file."""

    def __init__(self, nursery: "Nursery", pid: int, err: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self._err = err

    def traced(self, *command: str) -> "subprocess.Popen[bytes]":
        """Let a tracer seize it: `command` is strace's, without `-p`. The child waits still."""
        tracer = subprocess.Popen([*command, "-p", str(self.pid)], stderr=subprocess.DEVNULL)
        while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{self.pid}/status").read_text():
            assert tracer.poll() is None, "the tracer did not begin"
            time.sleep(0.002)
        return tracer

    def ended(self, limit: float) -> tuple[int | None, str]:
        """Let it go; give its exit code (None: it was killed after `limit` seconds, not having ended) and its words."""
        os.kill(self.pid, signal.SIGCONT)
        code = self._nursery.asked({"pid": self.pid, "limit": limit})
        return code, self._err.read_text("utf-8", "replace")


class Attendant:
    """A module that runs as a process of its own until its standard input closes, with the block."""

    def __init__(self, package: Path, *module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=package,
            env={**os.environ, "PYTHONPATH": str(package)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def hears(self) -> bytes:
        """Give the next line that it prints."""
        assert self._process.stdout
        return self._process.stdout.readline()


class Nursery(Attendant):
    """The process that forks."""

    def __init__(self, package: Path) -> None:
        super().__init__(package, "tests.crashes.nursery")

    def asked(self, order: Mapping[str, object]) -> int | None:
        """Give its answer to an order."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer: int | None = json.loads(self.hears())
        return answer

    def child(self, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Child:
        """Fork for a command of `batcher`; it stands still until `ended` is asked."""
        err = folder / "stderr"
        order = {"command": [*command], "folder": str(folder), "environ": {**environ}, "err": str(err)}
        pid = self.asked(order)
        assert pid is not None
        return Child(self, pid, err)


def _import_everything() -> None:
    import batcher

    for module in pkgutil.walk_packages(batcher.__path__, "batcher."):
        if not module.name.startswith(("batcher.sandbox", "batcher.__main__")):
            importlib.import_module(module.name)


def _waited(pid: int, limit: float) -> int | None:
    until = time.monotonic() + limit
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _become(order: Mapping[str, object]) -> None:
    """Turn the forked process into the command's."""
    os.setsid()
    os.chdir(str(order["folder"]))
    environ = order["environ"]
    assert isinstance(environ, dict)
    os.environ.clear()
    os.environ.update(environ)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(os.open(str(order["err"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    os.closerange(3, 64)
    command = order["command"]
    assert isinstance(command, list)
    sys.argv = ["batcher", *command]
    os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    """Serve orders, one JSON a line, until stdin ends; a child goes on from here as the command."""
    _import_everything()
    for line in iter(sys.stdin.buffer.readline, b""):
        order = json.loads(line)
        if "pid" in order:
            answer = _waited(order["pid"], order["limit"])
        else:
            answer = os.fork()
            if answer == 0:
                _become(order)
                break
            os.waitpid(answer, os.WUNTRACED)  # until it has stopped
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    else:
        return
    from batcher.cli import main as command

    command()


if __name__ == "__main__":
    main()
