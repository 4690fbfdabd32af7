"""The log of a run: one JSON object a line in `run.jsonl`, without tokens, without what could steer a terminal."""

import logging
import os
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from batcher.clock import rfc3339
from batcher.events import Ended, Event, Moved, Silence, Waiting, facts_of
from batcher.job import State
from batcher.ledger.rows import dump
from batcher.provider.redaction import Redactor
from batcher.terminal_text import CONTROLS, plain

_SIGNED_IN: Final = re.compile(r"(?i)\b(bearer\s+|key\s+(?=\S+:))\S+")
"""A token in a header, as it is spelt by the providers known."""
_TO_ESCAPE: Final = re.compile(rf"\\|{CONTROLS.pattern}")
"""In a line of JSON: what is a control character, or stands there as an escape and may be one."""


class Log:
    """Listens to a run, and writes what it hears. The file is for the user alone."""

    def __init__(self, out: Path, secret: str) -> None:
        fd = os.open(out / "run.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._file: TextIO = os.fdopen(fd, "w", encoding="utf-8", errors="replace", buffering=1)
        self._redactor = Redactor(secret)
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[self._render],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    def __call__(self, event: Event) -> None:
        """Write an event."""
        facts = facts_of(event)
        at = rfc3339(event.at)
        del facts["at"]
        level = "info"
        if isinstance(event, Moved):
            level = "warning" if event.to in {State.FAILED, State.UNCERTAIN} else "info"
        elif (isinstance(event, Ended) and event.stopped) or isinstance(event, Silence | Waiting):
            level = "warning"
        getattr(self._log, level)(type(event).__name__, at=at, level=level, **facts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _render(self, _logger: object, _method: str, entry: MutableMapping[str, Any]) -> str:
        """Return an entry as a line of JSON; only one that holds something to take out is gone over value by value."""
        line = dump(entry)
        if self._redactor.text(line) is line and not (_SIGNED_IN.search(line) or _TO_ESCAPE.search(line)):
            return line
        return dump({key: self._clean(value) for key, value in entry.items()})

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            text = self._redactor.text(value)
            return text if text.isalnum() else plain(_SIGNED_IN.sub(r"\1***", text))
        if isinstance(value, dict):
            return {key: self._clean(item) for key, item in value.items()}
        return value
