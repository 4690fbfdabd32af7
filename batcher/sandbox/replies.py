"""What the remote API sends: its answers, and what a fault makes of one. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import cache
from typing import Any, Final

from batcher.sandbox.faults import Manner

PAGE: Final = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
_PORTAL: Final = b"<!doctype html><title>Welcome</title><form>Sign in to use this network</form>"
_HUGE: Final = 50_000_000
_ABSURD: Final = b', "n": ' + b"9" * 6_000 + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
_SERVER_TROUBLES: Final = {"code_504": (504, 504001), "code_500_in_200": (200, 500001), "code_408": (408, 408001)}
_CUT_CODE: Final = b'{"error_code": 504001, "error_message": "the upst'
MAYBE_ACCEPTED: Final = frozenset(
    {*_SERVER_TROUBLES, "code_504_cut", *(f"error_{code}" for code in (408, 500, 502, 503, 504))}
)
"""Faults of submissions of which some are accepted, and some are not."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, JSON body, and the manner in which it arrives."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: Manner = Manner.WHOLE
    raw: bytes | None = None
    """What is sent in the place of the JSON."""
    cut_at: int = 0
    """Under CUT: the bytes that arrive."""

    def content(self) -> bytes:
        """Give the body as it is sent, whole or cut."""
        body = self.raw if self.raw is not None else json.dumps(self.body, ensure_ascii=False, default=str).encode()
        return body[: self.cut_at] if self.manner is Manner.CUT else body


def spoiled(fault: str | None, links: Mapping[str, str], earlier: Mapping[str, str]) -> Reply:
    """Answer a submission that was accepted, as a fault has it; `earlier`: the links of the job before."""
    whole = Reply(200, links)
    match fault:
        case "lose":
            return replace(whole, manner=Manner.NEVER)
        case "cut_early":
            return replace(whole, manner=Manner.CUT, cut_at=12)
        case "cut_late":
            return replace(whole, manner=Manner.CUT, cut_at=len(links["request_id"]) + 30)
        case "cut_clean":
            return replace(whole, raw=json.dumps(links).encode()[: len(links["request_id"]) + 30])
        case "junk":
            return replace(whole, raw=b")]}',\n" + json.dumps(links).encode() + b"\n<!-- served by a proxy -->")
        case "bad_byte":
            return replace(whole, raw=json.dumps(links)[:-1].encode() + b', "note": "caf\xe9"}')
        case "absurd":
            return replace(whole, raw=json.dumps(links)[:-1].encode() + _ABSURD)
        case "buried_id":
            return Reply(200, {"data": {"request_id": links["request_id"]}})
        case "refusal_with_id":
            return Reply(400, links)
        case "code_504" | "code_500_in_200" | "code_408" | "code_504_cut":
            return server_trouble(fault)
        case "html":
            return replace(whole, raw=PAGE, headers={"Content-Type": "text/html"})
        case "huge":
            return replace(whole, raw=json.dumps(links)[:-1].encode() + _noise())
        case "slow":
            return replace(whole, manner=Manner.SLOW)
        case "same_id":
            return Reply(200, earlier)
        case "foreign_urls":
            urls = {name: f"https://elsewhere.invalid/{name}" for name in links if name != "request_id"}
            return Reply(200, {**links, **urls})
        case str() if fault.startswith("error_"):
            return server_trouble(fault)
    return whole


def server_trouble(fault: str) -> Reply:
    """Answer as a gateway does that does not know what became of a submission."""
    if fault == "code_504_cut":
        return Reply(400, {}, raw=_CUT_CODE)
    if fault in _SERVER_TROUBLES:
        status, code = _SERVER_TROUBLES[fault]
        return error(status, code, "the upstream server did not answer in time")
    return Reply(int(fault[-3:]), {}, raw=b"")


@cache
def _noise() -> bytes:
    return b', "noise": "' + b"x" * _HUGE + b'"}'


def turned_away(fault: str | None, now: float) -> Reply | None:
    """Answer a submission that a fault keeps from being accepted; None where it is accepted."""
    match fault:
        case "busy":
            return error(429, 429001, "too many requests", {"Retry-After": "1"})
        case "busy_date":
            return error(429, 429001, "too many requests", {"Retry-After": formatdate(now + 2, usegmt=True)})
        case "busy_bare":
            return Reply(429, {}, raw=b"")
        case "full":
            return error(503, 503001, "no capacity")
        case "reset":
            return Reply(0, {}, manner=Manner.NEVER)
        case "redirect":
            return Reply(307, {}, {"Location": "https://elsewhere.invalid/v1/models/x"}, raw=b"")
        case "portal":
            return Reply(200, {}, {"Content-Type": "text/html"}, raw=_PORTAL)
        case "not_http":
            return Reply(0, {}, manner=Manner.NOT_HTTP, raw=b"SSH-2.0-OpenSSH_9.2\r\n")
        case "code_in_200":
            return error(200, 400123, "the image is too small")
    return None


def error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Make an error in the API's own form."""
    return Reply(status, {"error_code": code, "error_message": message}, headers or {})
