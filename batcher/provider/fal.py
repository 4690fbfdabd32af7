"""fal's queue API: builds a call, and reads an answer once, into the closed set of its call. Sends nothing.

Source of every rule: the vendor's documents, what its own clients do, and what others met live, as `docs/providers.md`
tells. Whatever fails, fails in the result: the queue itself knows three states, and no failure.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from batcher.clock import from_rfc3339
from batcher.job import FailureKind
from batcher.provider.answers import (
    FOR_GOOD,
    MOST_OUTPUTS,
    SUBMIT_TIMEOUT,
    TIMED_OUT,
    TROUBLE,
    after_fault,
    at_hand,
    is_success,
    lost,
    one_line,
    retry_after,
)
from batcher.provider.calls import RESULT_LIMIT, Answer, Call, WireFault
from batcher.provider.damaged_json import codes_in, named_id, other_than, parse, salvaged_id
from batcher.provider.openapi import input_schema
from batcher.provider.provider import ApiBase, PriceList, Provider, Reference, RequestHistory, Traits
from batcher.provider.replies import (
    Accepted,
    Busy,
    CancelAsked,
    Cancelled,
    CancelReply,
    CancelTooLate,
    Completed,
    Finished,
    Forbidden,
    GenerationFailed,
    Misdirected,
    Missing,
    OutOfCredit,
    PastPage,
    PastReply,
    PastRequest,
    PollReply,
    ProbeReply,
    Queued,
    Reached,
    SubmitReply,
    TurnedDown,
    Unauthorized,
    Unavailable,
    Unknown,
    Working,
)

_THREE_PARTS: Final = frozenset({"workflows", "comfy"})
"""Namespaces whose ids have three parts where requests are followed; others have two."""
_NO_REQUEST: Final = "00000000-0000-0000-0000-000000000000"
_PAGE: Final = 100
"""Requests of a page of the list, the most that the vendor gives."""
_PAYLOAD: Final = 32 * 2**20
"""Bytes of a request with its payload that are read: the most that one takes inline, and what came of it."""
_UNITS: Final = "x-fal-billable-units"
_RETRY_HINTS: Final = ("x-fal-needs-retry", "x-fal-retryable")
_REFUSALS: Final = frozenset({"content_policy_violation", "no_media_generated"})
_POLICY: Final = re.compile(r"content.polic|moderat|safety|nsfw|prohibited", re.IGNORECASE)
_PASSING: Final = re.compile(
    r"request_timeout|startup_timeout|runner_\w+|internal_(server_)?error|generation_timeout|downstream_service_\w+"
)
"""Types of errors that say nothing of the request: the same one may end well."""
_UNFINISHED: Final = re.compile(r"still in (progress|queue)|not (yet )?(completed|finished)", re.IGNORECASE)
_OUT_OF_MONEY: Final = re.compile(r"balance|top.?up", re.IGNORECASE)
_LOCKED: Final = re.compile(r"\block", re.IGNORECASE)
_CANCELLED_TYPE: Final = "client_cancelled"
_CANCELLED_STATUS: Final = 499
"""HTTP status of a request that was cancelled, beside its error type."""
_OVERLOADED: Final = 429
"""HTTP status of too many requests."""
_STEPS: Final = ("status", "result", "cancel")
_OUTPUTS: Final = ("images", "image", "videos", "video", "audio", "audio_file", "files", "file")
"""Fields of a result that hold files; of a model that has none of them, whatever holds a URL."""
_PRICES: Final = "/v1/models/pricing?"
_REQUESTS: Final = "/v1/models/requests/by-endpoint?"


class FalHistory:
    """The list of past requests, by endpoint. Records may come hours late: what is not in it is not disproven."""

    lists_within = 120.0

    def page(self, model_id: str, since: float, until: float | None, cursor: str | None) -> Call:
        """Build the call for a page of requests of that time, without what was asked for."""
        facts: dict[str, object] = {"endpoint_id": model_id, "start": _stamp(since), "limit": _PAGE}
        facts |= ({"end": _stamp(until)} if until is not None else {}) | ({"cursor": cursor} if cursor else {})
        return Call("GET", _REQUESTS + urlencode(facts), account=True)

    def one(self, model_id: str, request_id: str) -> Call:
        """Build the call for one request with what was asked for."""
        facts = {"endpoint_id": model_id, "request_id": request_id, "expand": "payloads"}
        return Call("GET", _REQUESTS + urlencode(facts), account=True, limit=_PAYLOAD)

    def read(self, answer: Answer | WireFault) -> PastReply:
        """Return the requests that an answer lists."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        said = _said(answer)
        if answer.status in {401, 403}:
            return Unauthorized(said.message)
        items = said.fields.get("items")
        if not is_success(answer.status) or not said.sound or not isinstance(items, list):
            return Unavailable(said.message, reached=True)
        cursor = said.fields.get("next_cursor")
        more = isinstance(cursor, str | int) and bool(cursor) and said.fields.get("has_more") is not False
        found = [_past(item) for item in items if isinstance(item, dict)]
        return PastPage(tuple(one for one in found if one), str(cursor) if more else None)


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(max(0.0, at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _past(item: Mapping[str, object]) -> PastRequest | None:
    request_id, inputs = named_id(item.get("request_id")), item.get("json_input")
    if request_id is None:
        return None
    return PastRequest(request_id, from_rfc3339(item.get("sent_at")), inputs if isinstance(inputs, dict) else None)


class FalPrices:
    """The listed price of a model's unit."""

    def price(self, model_id: str) -> Call:
        """Build the call for a model's price."""
        return Call("GET", _PRICES + urlencode({"endpoint_id": model_id}), account=True)

    def read(self, answer: Answer | WireFault, model_id: str) -> float | None:
        """Return the dollars of a unit, None where the answer does not say."""
        if isinstance(answer, WireFault) or not is_success(answer.status):
            return None
        listed = _said(answer).fields.get("prices")
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and one.get("endpoint_id") == model_id and one.get("currency", "USD") == "USD":
                return _amount(one.get("unit_price"))
        return None


class Fal:
    """fal's queue, and its platform API beside it."""

    name = "fal"
    traits = Traits(
        title="fal",
        repeat="none",
        result_tells_state=False,
        bill="units",
        full_queue="waits",
        most_inline_bytes=10_000_000,
        outputs_live="at least 7 days; they are fetched at once",
        authorization="Key",
        api=ApiBase("https://queue.fal.run", "FAL_QUEUE_BASE_URL"),
        account=ApiBase("https://api.fal.ai", "FAL_API_BASE_URL", often_ends="/v1"),
        token_names=("FAL_KEY",),
        token_pair=("FAL_KEY_ID", "FAL_KEY_SECRET"),
        file_hosts=(".fal.media",),
        token_hint="set FAL_KEY (fal.ai/dashboard/keys makes one; the scope API is enough)",  # noqa: S106 - no token
    )
    history: RequestHistory | None = FalHistory()
    price_list: PriceList | None = FalPrices()

    def submit(self, model_id: str, body: bytes, start_within: float) -> Call:
        """Build the one call that costs money.

        Its headers keep the vendor from doing it over, from putting another model in the place of one that fails, and
        from letting it wait in the queue without end.
        """
        headers = {
            "X-Fal-No-Retry": "1",
            "x-app-fal-disable-fallback": "true",
            "X-Fal-Request-Start-Timeout": str(max(1, math.ceil(start_within))),
        }
        return Call("POST", f"/{quote(model_id)}", body, timeout=SUBMIT_TIMEOUT, once=True, headers=headers)

    def status(self, request: Reference) -> Call:
        """Build the call that asks where a request stands."""
        return Call("GET", _path(request.model, request.request_id, "status"), follow=request.follow.get("status", ""))

    def result(self, request: Reference, aside: Path | None = None) -> Call:
        """Build the call for what came of a request, which answers as the model did."""
        path, follow = _path(request.model, request.request_id, "result"), request.follow.get("result", "")
        return Call("GET", path, timeout=300.0, limit=RESULT_LIMIT, aside=aside, of_result=True, follow=follow)

    def cancel(self, request: Reference) -> Call:
        """Build the call that asks for a request to end: one that runs may still be completed."""
        return Call("PUT", _path(request.model, request.request_id, "cancel"), follow=request.follow.get("cancel", ""))

    def probe(self) -> Call:
        """Build the call that tells whether the queue answers: it asks about a request that nobody has."""
        return Call("GET", _path("fal-ai/nano-banana-pro", _NO_REQUEST, "status"))

    def catalogue(self, model_id: str | None = None) -> Call | None:
        """Build the call for one model of the catalogue; all of them would be thousands, without their schemas."""
        if model_id is None:
            return None
        facts = {"endpoint_id": model_id, "expand": "openapi-3.0"}
        return Call("GET", "/v1/models?" + urlencode(facts), account=True)

    def balance(self) -> Call:
        """Build the call for what is left in the account, which takes an ADMIN key."""
        return Call("GET", "/v1/account/billing?expand=credits", account=True)

    def read_submit(self, answer: Answer | WireFault, now: float, model_id: str) -> SubmitReply:
        """Return what became of a submission; `now` in seconds since 1970, for a `Retry-After` that is a date."""
        if isinstance(answer, WireFault):
            return after_fault(answer)
        said = _said(answer)
        believed = is_success(answer.status) or answer.status not in {401, 402, 403}
        if believed and (request_id := _request_id(answer, said)):
            return Accepted(request_id, _follow(said.fields, model_id, request_id))
        own = said.message if said.own else ""
        match answer.status:
            case 401:
                return Unauthorized(said.message)
            case 402:
                return OutOfCredit(said.message)
            case 403:
                return _forbidden(said.message)
            case 429:
                return Busy(said.message, retry_after(answer, now))
            case 503 if said.own and not _is_troubled(said, answer):
                after = retry_after(answer, now)
                return Busy(said.message, after, shared=after is not None)
            case status if is_success(status) and said.type == "bad_request":
                return TurnedDown(FailureKind.INVALID, own)
            case status if status in FOR_GOOD and not _is_troubled(said, answer):
                kind = _kind(said, answer)
                return TurnedDown(
                    kind if kind is FailureKind.REFUSED else FailureKind.INVALID,
                    f"{own} [HTTP {status}]" if own else f"HTTP {status}",
                )
            case _:
                return lost(answer, own)

    def read_status(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return where a request stands."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        said = _said(answer)
        if stranger := _stranger(said, request.request_id):
            return stranger
        if refusal := _refused(answer, said, now):
            return refusal
        if answer.status == _CANCELLED_STATUS:
            return Cancelled()
        if not is_success(answer.status):
            return Unavailable(said.message, retry_after(answer, now), reached=True)
        return _standing(said, answer)

    def read_result(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return what came of a request; it answers with the HTTP status and the body of the model itself."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        said = _said(answer)
        if stranger := _stranger(said, request.request_id):
            return stranger
        if is_success(answer.status):
            return _finished(said, answer, request)
        if said.type == _CANCELLED_TYPE or (answer.status == _CANCELLED_STATUS and not said.type):
            return Cancelled()
        if not said.type:  # the queue's own words; a model's have a type
            if refusal := _refused(answer, said, now):
                return refusal
            if answer.status == 400 and _UNFINISHED.search(said.message):  # noqa: PLR2004
                return Working()
            if not said.own or answer.status in {405, TIMED_OUT, _OVERLOADED} or answer.status >= TROUBLE:
                return Unavailable(said.message, retry_after(answer, now), reached=True)
        return GenerationFailed(
            _kind(said, answer), f"{said.message} [HTTP {answer.status}]", _bill_of_failure(answer, request)
        )

    def read_cancel(self, answer: Answer | WireFault, now: float, request: Reference) -> CancelReply:
        """Return what became of a cancellation: that it was asked for is all that an answer tells."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        said = _said(answer)
        if stranger := _stranger(said, request.request_id):
            return stranger
        if is_success(answer.status):
            return CancelAsked()
        if refusal := _refused(answer, said, now):
            return refusal
        if answer.status == 400:  # noqa: PLR2004
            return CancelTooLate(str(said.fields.get("status") or said.message))
        return Unavailable(said.message, retry_after(answer, now), reached=True)

    def read_probe(self, answer: Answer | WireFault) -> ProbeReply:
        """Return whether the queue answers, and takes the key: that it knows no such request is an answer."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        message = _said(answer).message
        if answer.status in {401, 403}:
            return Unauthorized(f"HTTP {answer.status}: {message}")
        return Unavailable(message, reached=True) if answer.status >= TROUBLE else Reached()

    def read_catalogue(self, body: object, model_id: str | None = None) -> Sequence[Mapping[str, object]]:
        """Return the entries that an answer of the catalogue holds, each with the schema of its input."""
        found = body.get("models") if isinstance(body, dict) else None
        return [
            entry
            for one in (found if isinstance(found, list) else [])
            if isinstance(one, dict) and (entry := _entry(one)) and model_id in {None, entry["model_id"]}
        ]

    def read_balance(self, answer: Answer | WireFault) -> float | str:
        """Return the dollars that are left, or why that is not known."""
        if isinstance(answer, WireFault):
            return answer.message
        said = _said(answer)
        credits_ = said.fields.get("credits")
        left = credits_.get("current_balance", credits_.get("balance")) if isinstance(credits_, dict) else None
        if isinstance(left, int | float) and not isinstance(left, bool) and is_success(answer.status):
            return float(left)
        return f"{said.message}; it takes a key of the scope ADMIN" if answer.status in {401, 403} else said.message


FAL: Final[Provider] = Fal()


@dataclass(frozen=True, slots=True)
class _FalAnswer:
    """What an answer's JSON says of itself."""

    fields: Mapping[str, object]
    type: str
    """The kind of an error, as the vendor names it; nothing where it does not."""
    message: str
    own: bool
    """The body is an error in the API's own form."""
    sound: bool = True
    """The body is its JSON value and nothing else."""


def _said(answer: Answer) -> _FalAnswer:
    found, sound = parse(answer.body)
    fields = found if isinstance(found, dict) else {}
    http = f"HTTP {answer.status}"
    if not sound:
        return _FalAnswer(fields, "", http, own=False, sound=False)
    detail = fields.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    kind = fields.get("error_type") or answer.headers.get("x-fal-error-type") or first.get("type")
    words = _words(detail) or one_line(fields.get("error") or fields.get("message") or "")
    word = str(fields.get("status") or "")
    own = bool(detail) or bool(fields.get("error_type"))
    return _FalAnswer(fields, kind if isinstance(kind, str) else "", words or (f"{http} {word}".strip()), own)


def _words(detail: object) -> str:
    """Return what an error says: a text, or where in the input it is and what is wrong there, one after the other."""
    if isinstance(detail, list):
        return "; ".join(filter(None, map(_words, detail)))[:2000]
    if not isinstance(detail, dict):
        return one_line(detail) if detail else ""
    where = detail.get("loc")
    place = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
    said = one_line(detail.get("msg") or detail.get("message") or detail.get("type") or detail)
    return f"{place}: {said}" if place else said


def _app(model_id: str) -> str:
    """Return the owner and the app of a model, by which its requests are followed: the rest is for the submission."""
    parts = model_id.split("/")
    return "/".join(parts[: 3 if parts[0] in _THREE_PARTS else 2])


def _path(model_id: str, request_id: str, step: str) -> str:
    path = f"/{quote(_app(model_id))}/requests/{quote(request_id, safe='')}"
    return path if step == "result" else f"{path}/{step}"


def _follow(fields: Mapping[str, object], model_id: str, request_id: str) -> Mapping[str, str]:
    """Return the URLs that the server wants to be followed, but for those that are as its documents tell."""
    names = {"status": "status_url", "result": "response_url", "cancel": "cancel_url"}
    given = {step: url for step in _STEPS if isinstance(url := fields.get(names[step]), str) and url}
    return {step: url for step, url in given.items() if not url.endswith(_path(model_id, request_id, step))}


def _request_id(answer: Answer, said: _FalAnswer) -> str | None:
    """Return the id that an answer names, whole or damaged."""
    if said.sound or "request_id" in said.fields:
        return named_id(said.fields.get("request_id"))
    return salvaged_id(answer.body)


def _is_troubled(said: _FalAnswer, answer: Answer) -> bool:
    """Return whether an answer that turns a request down speaks of the server's own trouble: it may be accepted."""
    if _PASSING.fullmatch(said.type):
        return True
    if not said.sound and _PASSING.search(answer.body.decode("utf-8", "replace")):
        return True
    return not said.own and any(code == TIMED_OUT or code >= TROUBLE for code in codes_in(said.fields, answer.body))


def _forbidden(message: str) -> OutOfCredit | Unauthorized | Forbidden:
    """Return what a 403 means: no money, an account that is locked otherwise, or a key that may not do this."""
    if _OUT_OF_MONEY.search(message):
        return OutOfCredit(message)
    return Unauthorized(message) if _LOCKED.search(message) else Forbidden(message)


def _stranger(said: _FalAnswer, request_id: str) -> Misdirected | None:
    """Return that an answer names another request; one that names none is taken for ours."""
    named = other_than(said.fields.get("request_id"), request_id)
    return None if named is None else Misdirected(named)


def _refused(answer: Answer, said: _FalAnswer, now: float) -> Missing | Unauthorized | Forbidden | Unavailable | None:
    """Read what any reading call may be answered instead of what was asked; None for what is its own to read.

    An account without money is still told where its requests stand, so that a lock is waited for.
    """
    match answer.status:
        case 401:
            return Unauthorized(said.message)
        case 403 if isinstance(_forbidden(said.message), Forbidden):
            return Forbidden(said.message)
        case 403:
            return Unavailable(said.message, retry_after(answer, now), reached=True)
        case 404 if not isinstance(said.fields.get("detail"), list):
            return Missing(said.message)
    return None


def _standing(said: _FalAnswer, answer: Answer) -> PollReply:
    """Return the state that an answer of the queue tells."""
    word = str(said.fields.get("status") or "").upper()
    if not answer.whole or not word:
        why = "the answer was cut off" if not answer.whole else f"HTTP {answer.status}, an answer that says nothing"
        return Unavailable(why, reached=True)
    match word:
        case "IN_QUEUE":
            place = said.fields.get("queue_position")
            return Queued(place if isinstance(place, int) and not isinstance(place, bool) else None)
        case "IN_PROGRESS":
            return Working()
        case "COMPLETED" | "FAILED" | "ERROR":
            if said.type == _CANCELLED_TYPE:
                return Cancelled()
            failed = said.fields.get("error") or said.type or ("" if word == "COMPLETED" else word)
            return Completed(one_line(failed), _kind(said, answer)) if failed else Completed()
        case "CANCELLED" | "CANCELED":
            return Cancelled()
        case _:
            return Unknown(word.lower()[:100])


def _finished(said: _FalAnswer, answer: Answer, request: Reference) -> PollReply:
    if not answer.whole:
        return Unavailable("the answer was cut off", reached=True)
    if not said.fields:
        return Unavailable(f"HTTP {answer.status}, an answer that says nothing", reached=True)
    urls = _found_urls(said.fields)
    word = str(said.fields.get("status") or "").upper()
    if not urls and word in {"IN_QUEUE", "IN_PROGRESS"}:
        return _standing(said, answer)
    billed = _bill(answer, request)
    flags = said.fields.get("has_nsfw_concepts")
    if isinstance(flags, list) and any(flag is True for flag in flags):
        flagged = {index for index, flag in enumerate(flags) if flag is True}
        urls = [url for index, url in enumerate(urls) if index not in flagged]
        if not urls:  # what is there instead is a black picture
            return GenerationFailed(
                FailureKind.REFUSED, "the model flagged its output, and delivers a black picture instead", billed
            )
    at = tuple(at_hand(url, answer.aside) for url in dict.fromkeys(urls))
    return Finished(at[:MOST_OUTPUTS], billed, None, max(0, len(at) - MOST_OUTPUTS))


def _found_urls(fields: Mapping[str, object]) -> list[str]:
    """Return every output's URL: of the fields that are known to hold files, else of whatever holds a URL."""
    named = [fields[name] for name in _OUTPUTS if name in fields]
    found: list[str] = []
    for value in named or [one for one in fields.values() if isinstance(one, dict | list)]:
        for one in value if isinstance(value, list) else [value]:
            url = one.get("url") if isinstance(one, dict) else one if named else None
            if isinstance(url, str) and url.strip():
                found.append(url.strip())
    return found


def _kind(said: _FalAnswer, answer: Answer) -> FailureKind:
    """Return why a request failed: by its error's type, or the hint beside it; what nobody knows is not repeated."""
    if said.type in _REFUSALS:
        return FailureKind.REFUSED
    if _PASSING.fullmatch(said.type) or any(answer.headers.get(name) in {"1", "true"} for name in _RETRY_HINTS):
        return FailureKind.FAILED
    return FailureKind.REFUSED if _POLICY.search(said.message) else FailureKind.INVALID


def _amount(value: object) -> float | None:
    try:
        amount = float(str(value)) if not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def _bill(answer: Answer, request: Reference) -> float | None:
    """Return what a request is billed: its units times the listed price, None where either is not known."""
    units = _amount(answer.headers.get(_UNITS))
    return None if units is None or request.unit_usd is None else round(units * request.unit_usd, 6)


def _bill_of_failure(answer: Answer, request: Reference) -> float | None:
    """Return what a failure is billed: the server's own troubles are free, other failures may not be."""
    return 0.0 if answer.status >= TROUBLE else _bill(answer, request)


def _entry(listed: Mapping[str, object]) -> dict[str, object] | None:
    """Return a model of the catalogue in this project's form, None where it has no schema."""
    model_id, told, openapi = listed.get("endpoint_id"), listed.get("metadata"), listed.get("openapi")
    schema = input_schema(openapi, str(model_id)) if isinstance(openapi, dict) else None
    if not isinstance(model_id, str) or schema is None:
        return None
    facts = told if isinstance(told, dict) else {}
    return {
        "model_id": model_id,
        "provider": FAL.name,
        "display_name": str(facts.get("display_name") or model_id),
        "categories": [str(facts.get("category") or "")],
        "input_schema": schema,
    }
