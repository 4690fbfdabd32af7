"""What the answers of every vendor have in common: doubts, waits, ids that a damaged one still holds. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from batcher.job import ASIDE
from batcher.provider.calls import Answer, WireFault
from batcher.provider.damaged_json import hinted_ids, salvaged_id
from batcher.provider.replies import Accepted, Lost, SubmitReply, Unsent

SUBMIT_TIMEOUT: Final = 120.0
"""Seconds that the answer to a submission is waited for."""
FOR_GOOD: Final = frozenset({400, 404, 405, 413, 415, 422, 431})
"""HTTP statuses by which a submission is turned down as it is."""
MOST_OUTPUTS: Final = 256
"""Outputs of one result that are taken: models make at most a few, and thousands would be a server's error."""
TIMED_OUT: Final = 408
"""HTTP status: the server gave up waiting for the request (RFC 9110, 15.5.9)."""
TROUBLE: Final = 500
"""The lowest HTTP status that is the server's own trouble."""
_EVIDENCE: Final = 4096
"""Bytes of an answer that are kept."""
_LONGEST_WAIT: Final = 3600.0
"""Seconds of a `Retry-After` that are believed."""


def is_success(status: int) -> bool:
    """Return whether an HTTP status says that all went well."""
    return 200 <= status < 300  # noqa: PLR2004


def one_line(value: object) -> str:
    """Return a server's words as one line, whatever JSON type they came as."""
    if isinstance(value, dict):
        value = value.get("message") or value.get("detail") or value.get("error") or value.get("msg") or value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())[:2000]


def after_fault(fault: WireFault) -> SubmitReply:
    """Return what became of a submission that no answer came to."""
    if not fault.sent:
        return Unsent(fault.message)
    if request_id := salvaged_id(fault.came):
        return Accepted(request_id)
    why = f"sent, and no readable answer came: {fault.message}"
    evidence: dict[str, object] = {"phase": "waiting for the answer", "exception": fault.message}
    return _hinting(why, evidence, fault.message + fault.came[:_EVIDENCE].decode("utf-8", "replace"))


def lost(answer: Answer, words: str) -> Lost:
    """Return the reply of an answer that says neither yes nor no, with the ids that it may hold.

    `words`: the API's own, nothing where the answer is in no form of the API's.
    """
    why = words or ("an answer that says neither yes nor no" if answer.whole else "an answer that was cut off")
    evidence = _evidence(answer)
    return _hinting(f"HTTP {answer.status}, {why}", evidence, str(evidence["body"]))


def _hinting(why: str, evidence: dict[str, object], text: str) -> Lost:
    """Return that an answer was lost, with the ids that its text may hold."""
    if ids := hinted_ids(text):
        why += f"; it may hold the request id {' or '.join(ids)}"
        evidence["request_ids"] = ids
    return Lost(why, evidence)


def _evidence(answer: Answer) -> dict[str, object]:
    headers = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
    phase = "answered" if answer.whole else "reading the answer"
    return {
        "phase": phase,
        "status": answer.status,
        "headers": headers,
        "body": answer.body[:_EVIDENCE].decode("utf-8", "replace"),
    }


def retry_after(answer: Answer, now: float) -> float | None:
    """Return the seconds that an answer asks to wait, None where it asks for none; `now` in seconds since 1970."""
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return min(_LONGEST_WAIT, max(0.0, float(text)))
    except ValueError:
        pass
    try:
        moment: datetime = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(_LONGEST_WAIT, max(0.0, moment.timestamp() - now))


def at_hand(url: str, aside: Sequence[Path]) -> str:
    """Return the file that stands in the place of a mark, as `aside:FILE`; a server cannot name one itself."""
    head, mark, number = url.rpartition(";base64,aside:")
    if mark and head.startswith("data:") and number.isdigit() and int(number) < len(aside):
        return f"{ASIDE}{aside[int(number)]}"
    return f"no:{url}" if url.startswith(ASIDE) else url
