"""Commands that start at once: a process that has imported everything forks for each of them.

A child can stop itself before its first step, so that a tracer can be there from the beginning; it then goes the way of
`python -m batcher`, to its end. It is a process like any other, but for the time that an interpreter's start and imports take.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self


class Child:
    """One command; what it says is in files."""

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
        super().__init__(package, "tests.nursery")
        self._package = package

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
        streams = [os.devnull, os.devnull, str(err)]
        return Child(self, self._forked(command, folder, environ, streams, stopped=True), err)

    def _forked(
        self, command: Sequence[str], folder: Path, environ: Mapping[str, str], streams: list[str], *, stopped: bool
    ) -> int:
        order = {"command": [*command], "folder": str(folder), "environ": {**environ}, "streams": streams}
        pid = self.asked({**order, "stopped": stopped, "package": str(self._package)})
        assert pid is not None
        return pid

    def run(
        self, command: Sequence[str], folder: Path, environ: Mapping[str, str], stdin: str | None, limit: float
    ) -> tuple[int | None, str, str]:
        """Run a command to its end, as `subprocess.run` does; give its exit code and what it wrote."""
        with tempfile.TemporaryDirectory(prefix="said-") as name:
            given, out, err = (Path(name) / one for one in ("in", "out", "err"))
            given.write_text(stdin or "")
            streams = [str(given) if stdin is not None else os.devnull, str(out), str(err)]
            pid = self._forked(command, folder, environ, streams, stopped=False)
            code = self.asked({"pid": pid, "limit": limit})
            return code, out.read_text("utf-8"), err.read_text("utf-8")


def _import_everything() -> None:
    import batcher

    for module in pkgutil.walk_packages(batcher.__path__, "batcher."):
        if not module.name.startswith(("batcher.sandbox", "batcher.__main__")):
            importlib.import_module(module.name)
    for name in ("uvloop", "rich.live", "rich.table", "PIL.Image", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()


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
    streams, command = order["streams"], order["command"]
    assert isinstance(streams, list)
    assert isinstance(command, list)
    for number, name in enumerate(streams):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        os.dup2(os.open(name, flags, 0o600), number)
    os.closerange(3, 64)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.modules["__main__"].__package__ = "batcher"
    sys.argv = [f"{order['package']}/batcher/__main__.py", *command]
    if order["stopped"]:
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
            if order["stopped"]:
                os.waitpid(answer, os.WUNTRACED)  # until it has
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    else:
        return
    from batcher.cli import main as command

    command()


if __name__ == "__main__":
    main()
