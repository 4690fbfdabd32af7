"""Records every exchange with an API into a file that can be shared: no token, no long data, no signature of a URL."""

import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from batcher.clock import Clock, rfc3339
from batcher.errors import WrongUse
from batcher.outputs.sidecar import shortened
from batcher.provider.calls import Answer, Call, Download, Wire, WireFault, target

_MOST: Final = 100_000
"""Characters of an answer that are recorded."""
_QUERY: Final = re.compile(r"((?:https?:)?//[^\s\"'?#]+|^/[^\s\"'?#]*)[?#][^\s\"']*", re.IGNORECASE)
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_=-]{200,}")
"""Long data, as base64 has it."""
_PRIVATE: Final = frozenset({"set-cookie", "username", "email", "user_id", "account_id"})
"""Headers and fields that say who the user is."""
_BASE: Final = "https://api"


class RecordingWire:
    """A wire that writes down what it carries, each exchange as it ends: a crash loses none."""

    def __init__(self, wire: Wire, file: Path, clock: Clock, complain: Callable[[str], None]) -> None:
        """`complain` is told of exchanges that could not be written down."""
        self._wire = wire
        self._complain = complain
        self.unwritten: list[str] = []
        self._file = file
        self._clock = clock
        self.sent = 0
        self.headers: set[str] = set()
        """Names of the headers that came, in lower case."""
        try:
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise WrongUse(f"{file} exists already: what was bought is in it", "choose another file with -o") from None
        except OSError as error:
            raise WrongUse(f"{file} cannot be written: {error.strerror}", "choose another file with -o") from None
        os.close(opened)

    async def send(self, call: Call) -> Answer | WireFault:
        """Send one call, and record it with its answer; one that costs money stands beside the file until then."""
        self.sent += 1
        begun = self._clock.now()
        body = None if call.body is None else json.loads(call.body)
        path = target(call, _BASE).removeprefix(_BASE) if not call.follow else urlsplit(call.follow).path
        request = {"method": call.method, "path": path, "body": body}
        intent = self._file.with_name(f"{self._file.name}.sending")
        if call.once:
            intent.write_text(json.dumps({"at": rfc3339(begun), "request": shared(request)}) + "\n", "utf-8")
        answer = await self._wire.send(call)
        if isinstance(answer, Answer):
            self.headers.update(answer.headers)
        self._write(begun, request, _of(answer))
        if call.once:
            intent.unlink(missing_ok=True)
        return answer

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        """Open a file, and record how that was answered, without its bytes."""
        begun = self._clock.now()
        async with self._wire.download(url) as got:
            length = {"content-length": str(got.length)} if isinstance(got, Download) and got.length else {}
            said = {"status": got.status, "headers": length} if isinstance(got, Download) else {"fault": got.message}
            self._write(begun, {"method": "GET", "path": url, "body": None}, said)
            yield got

    def on_suspend(self) -> None:
        """Return what is on its way more time."""
        self._wire.on_suspend()

    async def refresh(self) -> None:
        """Drop connections that may have died unnoticed."""
        await self._wire.refresh()

    async def close(self) -> None:
        """Drop all connections."""
        await self._wire.close()

    def _write(self, begun: float, request: Mapping[str, object], answer: Mapping[str, object]) -> None:
        took = round(self._clock.now() - begun, 3)
        path = request["path"]  # ours has no signature, but that of a file may have one
        asked = {**_mapping(shared(request)), **({"path": path} if str(path).startswith("/") else {})}
        line = json.dumps(
            {"at": rfc3339(begun), "seconds": took, "request": asked, "answer": shared(answer)}, ensure_ascii=False
        )
        try:
            with self._file.open("a", encoding="utf-8", errors="replace") as file:
                file.write(line + "\n")
        except OSError as error:  # what was bought must not be lost for it
            self.unwritten.append(line)
            self._complain(f"{self._file} cannot be written ({error.strerror}); the exchange was: {line}")


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _of(answer: Answer | WireFault) -> Mapping[str, object]:
    if isinstance(answer, WireFault):
        return {"fault": answer.message, "sent": answer.sent}
    text = answer.body.decode("utf-8", "replace")
    try:
        body: object = json.loads(text)
    except ValueError:
        body = text[:_MOST]
    return {"status": answer.status, "headers": dict(answer.headers), "body": body}


def shared(value: object) -> object:
    """Return JSON without what is long, and without what says who the user is or lets others in."""
    if isinstance(value, str):
        text = _QUERY.sub(r"\1?***", str(shortened(value)))
        return _ENCODED.sub(lambda found: f"<{len(found[0]):,} characters>", text)[:_MOST]
    if isinstance(value, Mapping):
        return {
            str(shared(str(key))): "***" if str(key).lower() in _PRIVATE else shared(item)
            for key, item in value.items()
        }
    return [shared(item) for item in value] if isinstance(value, list | tuple) else value
