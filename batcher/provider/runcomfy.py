"""RunComfy's Model API: builds a call, and reads an answer once, into the closed set of its call. Sends nothing.

Source of every rule: the vendor's page of the model, and what its own clients are seen to do.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

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
from batcher.provider.provider import ApiBase, PriceList, Provider, Reference, RequestHistory, Traits
from batcher.provider.replies import (
    Accepted,
    Busy,
    CancelDone,
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

_QUEUED: Final = frozenset({"in_queue", "queued", "pending", "waiting", "starting"})
_WORKING: Final = frozenset({"in_progress", "processing", "running"})
_COMPLETED: Final = frozenset({"completed", "succeeded", "success"})
_CANCELLED: Final = frozenset({"cancelled", "canceled"})
_FAILED: Final = frozenset({"failed", "error"})
_NOT_TAKEN: Final = frozenset({401, 402, 403})
"""What is answered before anyone looks at a request: an id in such an answer is of the answer."""
_POLICY: Final = re.compile(r"polic|moderat|safety|nsfw|prohibited|sensitive|violat|unsafe", re.IGNORECASE)
_MEDIA: Final = ("image", "images", "video", "videos")


class RunComfy:
    """RunComfy's Model API."""

    name = "runcomfy"
    traits = Traits(
        title="RunComfy",
        repeat="none",
        result_tells_state=True,
        bill="result",
        full_queue="rejects",
        most_inline_bytes=64 * 2**20,
        outputs_live="not known: they are fetched at once",
        authorization="Bearer",
        api=ApiBase("https://model-api.runcomfy.net", "RUNCOMFY_MODEL_API_BASE", often_ends="/v1"),
        account=ApiBase("https://api.runcomfy.net", "RUNCOMFY_SERVERLESS_API_BASE"),
        config_folder="runcomfy",
        config_variable="RUNCOMFY_CONFIG_DIR",
        token_names=("RUNCOMFY_TOKEN", "RUNCOMFY_API_TOKEN", "RUNCOMFY_API_KEY"),
        file_hosts=(".runcomfy.net", ".runcomfy.com"),
        token_hint="set RUNCOMFY_TOKEN (your profile page on runcomfy.com has it)",  # noqa: S106 - no token
    )

    history: RequestHistory | None = None
    price_list: PriceList | None = None

    def submit(self, model_id: str, body: bytes, start_within: float) -> Call:  # noqa: ARG002 - none is known
        """Build the one call that costs money; the body is the model's input as JSON."""
        return Call("POST", f"/v1/models/{quote(model_id)}", body, timeout=SUBMIT_TIMEOUT, once=True)

    def status(self, request: Reference) -> Call:
        """Build the call that asks where a request stands."""
        return Call("GET", f"{_of(request)}/status")

    def result(self, request: Reference, aside: Path | None = None) -> Call:
        """Build the call for a request's outcome and bill; until it has ended this says where it stands."""
        path = f"{_of(request)}/result?include_cost=true"
        return Call("GET", path, timeout=300.0, limit=RESULT_LIMIT, aside=aside, of_result=True)

    def cancel(self, request: Reference) -> Call:
        """Build the call that takes a request out of the server's queue."""
        return Call("POST", f"{_of(request)}/cancel")

    def probe(self) -> Call:
        """Build the call that tells whether the API answers."""
        return self.catalogue()

    def catalogue(self, model_id: str | None = None) -> Call:
        """Build the call for the catalogue, or for one of its models."""
        if model_id is None:
            return Call("GET", "/v1/models?include_schema=true&limit=200")
        return Call("GET", f"/v1/models/{quote(model_id)}")

    def balance(self) -> Call:
        """Build the call for what is left in the account; its host is not the API's."""
        return Call("GET", "/prod/v2/balance", account=True)

    def read_submit(self, answer: Answer | WireFault, now: float, model_id: str) -> SubmitReply:  # noqa: ARG002
        """Return what became of a submission; `now` in seconds since 1970, for a `Retry-After` that is a date."""
        return read_submit(answer, now)

    def read_status(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return where a request stands."""
        return read_poll(answer, now, request.request_id)

    def read_result(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return what came of a request, or where it stands."""
        return read_poll(answer, now, request.request_id)

    def read_cancel(self, answer: Answer | WireFault, now: float, request: Reference) -> CancelReply:
        """Return what became of a cancellation."""
        return read_cancel(answer, now, request.request_id)

    def read_probe(self, answer: Answer | WireFault) -> ProbeReply:
        """Return whether the API answers, and takes the token."""
        if isinstance(answer, WireFault):
            return Unavailable(answer.message)
        http = f"HTTP {answer.status}"
        if answer.status in {401, 403}:
            return Unauthorized(http)
        return Reached() if answer.status == 200 else Unavailable(http, reached=True)  # noqa: PLR2004

    def read_catalogue(self, body: object, model_id: str | None = None) -> Sequence[Mapping[str, object]]:
        """Return the entries that an answer of the catalogue holds."""
        if model_id is None:
            found = body.get("models") or body.get("items") or [] if isinstance(body, dict) else body
            return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        if not isinstance(body, dict):
            return []
        inner = body.get("model")
        return [inner if isinstance(inner, dict) else {"model_id": model_id, **body}]

    def read_balance(self, answer: Answer | WireFault) -> float | str:
        """Return the dollars that are left, or why that is not known."""
        return read_balance(answer)


RUNCOMFY: Final[Provider] = RunComfy()


def _of(request: Reference) -> str:
    return f"/v1/requests/{quote(request.request_id, safe='')}"


@dataclass(frozen=True, slots=True)
class _RunComfyAnswer:
    """What an answer's JSON says of itself, whatever its shape."""

    fields: Mapping[str, object]
    code: int | None
    """The API's own error code, six digits: its first three are an HTTP status."""
    message: str
    own: bool
    """The body is an error in the API's own form."""
    sound: bool = True
    """The body is its JSON value and nothing else."""


def _said(answer: Answer) -> _RunComfyAnswer:
    found, sound = parse(answer.body)
    fields = found if isinstance(found, dict) else {}
    if not sound:  # enough for an id or a state, and no ground for a certain refusal
        return _RunComfyAnswer(fields, None, "", own=False, sound=False)
    codes = (_code(fields[key]) for key in ("error_code", "code") if fields.get(key) is not None)
    code = next((one for one in codes if one is not None), None)
    words = [one_line(fields[key]) for key in ("error_message", "error", "detail", "message") if fields.get(key)]
    own = (
        code is not None or "error_message" in fields or "error_code" in fields or isinstance(fields.get("error"), str)
    )
    message = words[0] if words else ""
    return _RunComfyAnswer(fields, code, f"{message} ({code})" if code and message else message or f"error {code}", own)


def _code(value: object) -> int | None:
    try:
        code = int(str(value))
    except ValueError:
        return None
    return code if 400_000 <= code <= 599_999 else None  # noqa: PLR2004 - six digits, an HTTP error first


def read_submit(answer: Answer | WireFault, now: float) -> SubmitReply:
    """Return what became of a submission; `now` in seconds since 1970, for a `Retry-After` that is a date.

    What certainly was not accepted is a short list. Everything else that is no acceptance is `Lost`, error codes of the
    server's own troubles among it: a gateway can accept a request, and then answer 504001.
    """
    if isinstance(answer, WireFault):
        return after_fault(answer)
    said = _said(answer)
    http = f"HTTP {answer.status}"
    meaning = said.code // 1000 if said.code else answer.status
    believed = is_success(answer.status) or meaning not in _NOT_TAKEN
    if believed and (request_id := _request_id(answer, said)):  # an error that names a request may have made it
        return Accepted(request_id)
    message = said.message if said.own else http
    if meaning in FOR_GOOD and said.code is None and _is_troubled(said, answer):
        return lost(answer, said.message if said.own else "")
    match meaning, said.code:
        case _, 400_002:
            return OutOfCredit(message)
        case _, 400_004:
            return Unauthorized(message)
        case 401, _:
            return Unauthorized(message)
        case 402, _:
            return OutOfCredit(message)
        case 403, _:
            return Forbidden(message)
        case 429, _:
            return Busy(message, retry_after(answer, now))
        case 503, _ if said.own:
            after = retry_after(answer, now)
            return Busy(message, after, shared=after is not None)
        case status, _ if status in FOR_GOOD:
            kind = FailureKind.REFUSED if _POLICY.search(message) else FailureKind.INVALID
            return TurnedDown(kind, message if message.startswith("HTTP") else f"{message} [{http}]")
        case _:
            return lost(answer, said.message if said.own else "")


def _request_id(answer: Answer, said: _RunComfyAnswer) -> str | None:
    """Return the id that an answer names, whole or damaged."""
    if said.sound or "request_id" in said.fields:
        return named_id(said.fields.get("request_id"))
    return salvaged_id(answer.body)


def _is_troubled(said: _RunComfyAnswer, answer: Answer) -> bool:
    """Return whether an answer, damaged or in no form of the API's, speaks of the server's own trouble.

    A gateway may have passed the request on, and its words, not those of who looked after it, say that it was turned
    down: what it says of a trouble keeps that from being believed.
    """
    return any(code == TIMED_OUT or code >= TROUBLE for code in codes_in(said.fields, answer.body))


def read_poll(answer: Answer | WireFault, now: float, request_id: str) -> PollReply:
    """Return where a request stands, from an answer to `status` or `result`."""
    if isinstance(answer, WireFault):
        return Unavailable(answer.message)
    said = _said(answer)
    if stranger := _stranger(said, request_id):
        return stranger
    if refusal := _read_refused(answer, said, now):
        return refusal
    word = str(said.fields.get("status", "")).lower()
    error = _error_in(said.fields)
    if word in _FAILED or (word in _COMPLETED and error and not _found_urls(said.fields.get("output"))):
        message = one_line(error or "the server gives no reason")
        return GenerationFailed(
            FailureKind.REFUSED if _POLICY.search(message) else FailureKind.FAILED, message, _cost(said)
        )
    if word in _COMPLETED:
        return _ended(said, answer)
    if word in _CANCELLED:
        return Cancelled()
    if word in _QUEUED:
        place = said.fields.get("queue_position")
        return Queued(place if isinstance(place, int) and not isinstance(place, bool) else None)
    if word in _WORKING:
        return Working()
    if not said.fields or not word:
        return Unavailable(f"HTTP {answer.status}, an answer that says nothing", reached=True)
    return Unknown(word[:100])


def _stranger(said: _RunComfyAnswer, request_id: str) -> Misdirected | None:
    """Return that an answer names another request; one that names none is taken for ours."""
    named = other_than(said.fields.get("request_id"), request_id)
    return None if named is None else Misdirected(named)


def _read_refused(
    answer: Answer, said: _RunComfyAnswer, now: float
) -> Missing | Unauthorized | Forbidden | Unavailable | None:
    """Read what any reading call may be answered instead of what was asked."""
    if said.code is None and is_success(answer.status):
        return None if answer.whole else Unavailable("the answer was cut off", reached=True)
    if said.fields.get("status") and said.code is None and answer.status < 500:  # noqa: PLR2004 - a state, oddly sent
        return None
    message = said.message if said.own else f"HTTP {answer.status}"
    match (said.code // 1000 if said.code else answer.status), said.code:
        case _, 400_004:
            return Unauthorized(message)
        case 401, _:
            return Unauthorized(message)
        case 403, _:
            return Forbidden(message)
        case 404, _:
            return Missing(message)
        case _:
            return Unavailable(message, retry_after(answer, now), reached=True)


def _error_in(fields: Mapping[str, object]) -> object:
    """Return the error that a result carries, None for none."""
    output = fields.get("output")
    within = output.get("error") if isinstance(output, dict) else None
    return fields.get("error") or fields.get("error_message") or within


def _ended(said: _RunComfyAnswer, answer: Answer) -> Completed | Finished:
    if "output" not in said.fields:
        return Completed()
    urls = _urls(said.fields["output"], answer.aside)
    finished_at = from_rfc3339(said.fields.get("finished_at"))
    return Finished(urls[:MOST_OUTPUTS], _cost(said), finished_at, max(0, len(urls) - MOST_OUTPUTS))


def _urls(output: object, aside: Sequence[Path]) -> tuple[str, ...]:
    """Return every output's URL: one or many, bare or in an object; `aside:FILE` for what came within."""
    return tuple(at_hand(url, aside) for url in _found_urls(output))


def _found_urls(output: object) -> list[str]:
    found: dict[str, None] = {}
    for name in _MEDIA if isinstance(output, dict) else ():
        value = output.get(name)  # type: ignore[attr-defined]
        for one in value if isinstance(value, list) else [value]:
            url = one.get("url") if isinstance(one, dict) else one
            if isinstance(url, str) and url.strip():
                found[url.strip()] = None
    return list(found)


def _cost(said: _RunComfyAnswer) -> float | None:
    cost = said.fields.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("usd", cost.get("amount"))
    try:
        usd = float(str(cost)) if not isinstance(cost, bool) else math.nan
    except ValueError:
        return None
    return usd if math.isfinite(usd) and usd >= 0 else None  # what cannot be a bill is no bill


def read_balance(answer: Answer | WireFault) -> float | str:
    """Return the dollars that are left, or why that is not known."""
    if isinstance(answer, WireFault):
        return answer.message
    said = _said(answer)
    left = said.fields.get("balance_usd")
    if isinstance(left, int | float) and not isinstance(left, bool):
        return float(left)
    return said.message if said.own else f"HTTP {answer.status}"


def read_cancel(answer: Answer | WireFault, now: float, request_id: str) -> CancelReply:
    """Return what became of a cancellation."""
    if isinstance(answer, WireFault):
        return Unavailable(answer.message)
    said = _said(answer)
    if stranger := _stranger(said, request_id):
        return stranger
    outcome = str(said.fields.get("outcome") or said.fields.get("status") or "").lower()
    if outcome in _CANCELLED:
        return CancelDone()
    if outcome:
        return CancelTooLate(outcome)
    if refusal := _read_refused(answer, said, now):
        return refusal
    return CancelTooLate(said.message)
