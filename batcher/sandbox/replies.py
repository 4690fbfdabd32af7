"""What the remote API sends: its answers, and what a fault makes of one, whatever the protocol. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import cache
from typing import Any, Final, Protocol

from batcher.sandbox.faults import FaultManner

PAGE: Final = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
_PORTAL: Final = b"<!doctype html><title>Welcome</title><form>Sign in to use this network</form>"
_HUGE: Final = 50_000_000
"""Bytes of an answer that is far too long."""
_ABSURD: Final = b', "n": ' + b"9" * 6_000 + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, JSON body, and the manner in which it arrives."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: FaultManner = FaultManner.WHOLE
    raw: bytes | None = None
    """What is sent in the place of the JSON."""
    cut_at: int = 0
    """Under CUT: the bytes that arrive."""

    def content(self) -> bytes:
        """Return the body as it is sent, whole or cut."""
        body = self.raw if self.raw is not None else json.dumps(self.body, ensure_ascii=False, default=str).encode()
        return body[: self.cut_at] if self.manner is FaultManner.CUT else body


class Dialect(Protocol):
    """How a protocol words what goes wrong."""

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Return an error in the API's own form."""
        ...

    def trouble(self, fault: str) -> Reply:
        """Return what a gateway says, in the API's own form, that does not know what became of a submission."""
        ...

    def refusal_in_200(self) -> Reply:
        """Return an error in the API's own form that comes with HTTP 200, and stands for a bad request."""
        ...


def spoiled(fault: str | None, links: Mapping[str, Any], earlier: Mapping[str, Any], dialect: Dialect) -> Reply:
    """Answer a submission that was accepted, as a fault has it; `earlier`: the links of the job before."""
    whole = Reply(200, links)
    match fault:
        case "lose":
            return replace(whole, manner=FaultManner.NEVER)
        case "cut_early":
            return replace(whole, manner=FaultManner.CUT, cut_at=12)
        case "cut_late":
            return replace(whole, manner=FaultManner.CUT, cut_at=len(links["request_id"]) + 30)
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
        case "html":
            return replace(whole, raw=PAGE, headers={"Content-Type": "text/html"})
        case "huge":
            return replace(whole, raw=json.dumps(links)[:-1].encode() + _noise())
        case "slow":
            return replace(whole, manner=FaultManner.SLOW)
        case "same_id":
            return Reply(200, earlier)
        case "foreign_urls":
            urls = {name: f"https://elsewhere.invalid/{name}" for name in links if name.endswith("_url")}
            return Reply(200, {**links, **urls})
        case str() if fault.startswith(("error_", "code_")):
            return server_trouble(fault, dialect)
    return whole


def server_trouble(fault: str, dialect: Dialect) -> Reply:
    """Answer as a gateway does that does not know what became of a submission."""
    return Reply(int(fault[-3:]), {}, raw=b"") if fault.startswith("error_") else dialect.trouble(fault)


@cache
def _noise() -> bytes:
    return b', "noise": "' + b"x" * _HUGE + b'"}'


def turned_away(fault: str, now: float, dialect: Dialect) -> Reply:
    """Answer a submission that a fault keeps from being accepted."""
    match fault:
        case "busy":
            return dialect.error(429, "too many requests", {"Retry-After": "1"})
        case "busy_date":
            return dialect.error(429, "too many requests", {"Retry-After": formatdate(now + 2, usegmt=True)})
        case "busy_bare":
            return Reply(429, {}, raw=b"")
        case "full":
            return dialect.error(503, "no capacity")
        case "redirect":
            return Reply(307, {}, {"Location": "https://elsewhere.invalid/v1/models/x"}, raw=b"")
        case "portal":
            return Reply(200, {}, {"Content-Type": "text/html"}, raw=_PORTAL)
        case "not_http":
            return Reply(0, {}, manner=FaultManner.NOT_HTTP, raw=b"SSH-2.0-OpenSSH_9.2\r\n")
        case "code_in_200":
            return dialect.refusal_in_200()
        case _:
            return Reply(0, {}, manner=FaultManner.NEVER)


def misread(fault: str | None, whole: Reply, dialect: Dialect) -> Reply:
    """Answer a poll as a fault has it that strikes readings."""
    match fault:
        case "stumble":
            return Reply(502, {})
        case "read_busy":
            return dialect.error(429, "too many requests", {"Retry-After": "2"})
        case "read_html":
            return Reply(200, {}, {"Content-Type": "text/html"}, raw=PAGE)
        case "read_cut":
            return replace(whole, status=200, manner=FaultManner.CUT, cut_at=20)
        case "read_reset":
            return Reply(0, {}, manner=FaultManner.NEVER)
    return whole
