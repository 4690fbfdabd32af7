"""The sandbox's face that speaks fal's queue and platform APIs, as documents and others' calls tell. Pure."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from batcher.sandbox.face import Ask, Shell
from batcher.sandbox.replies import Reply, misread, server_trouble, spoiled, turned_away
from batcher.sandbox.world import Reading, RefusalReason, Request, RequestState, SubmissionRefused, World

_REFUSALS: Final = {
    RefusalReason.TOKEN: (401, "No user found for Key ID and Secret", ""),
    RefusalReason.BALANCE: (403, "User is locked. Reason: Exhausted balance. Top up your balance to go on.", ""),
    RefusalReason.OUTSTANDING: (429, "too many requests are outstanding", "concurrent_requests_limit"),
    RefusalReason.RATE: (429, "too many submissions", "rate_limited"),
}
"""HTTP status, words, type."""
_FAILURES: Final = {
    RefusalReason.FAILED: (500, "internal_server_error"),
    RefusalReason.POLICY: (422, "content_policy_violation"),
    RefusalReason.INPUT: (422, "value_error"),
    RefusalReason.IMAGE: (422, "file_download_error"),
    RefusalReason.TIMEOUT: (504, "request_timeout"),
}
"""What the result of a failed request is answered with: HTTP status, type."""
_TROUBLES: Final = {"code_503": 503, "code_504": 504, "code_500_in_200": 200, "code_408": 408}
_CUT_TYPE: Final = b'{"error_type": "request_timeout", "detail": "the upst'
_THREE_PARTS: Final = frozenset({"workflows", "comfy"})
_STATES: Final = {
    RequestState.WORKING: "IN_PROGRESS",
    RequestState.COMPLETED: "COMPLETED",
    RequestState.ODD: "REHYDRATING",
}
_START: Final = ("x-fal-request-start-timeout", "x-fal-request-timeout")
_MOST_LISTED: Final = 100
"""Requests on one page of the list of past requests."""


class FalFace:
    """fal's queue, and its platform API beside it."""

    name = "fal"

    def answer(self, world: World, asked: Ask, shell: Shell) -> Reply | None:
        """Return the answer to a request; None where the protocol has no such path."""
        match (asked.method, *asked.parts):
            case ("GET", "v1", "models", "requests", "by-endpoint"):
                return self._past(world, asked, shell)
            case ("GET", "v1", "models", "pricing"):
                return self._prices(world, asked)
            case ("GET", "v1", "models"):
                return self._catalogue(world, asked)
            case ("GET", "v1", "account", "billing"):
                credit = {"current_balance": world.left(), "currency": "USD"}
                known = world.knows(_token(asked))
                return Reply(200, {"username": "sandbox", "credits": credit}) if known else self._refusal(_NO_TOKEN)
            case (method, *app, "requests", request_id, "status" | "cancel" | "response" as what) if app:
                return self._follow(world, asked, (method, "/".join(app), request_id, what), shell)
            case (method, *app, "requests", request_id) if app:
                return self._follow(world, asked, (method, "/".join(app), request_id, "response"), shell)
            case ("POST", *model) if model:
                return self._submit(world, asked, "/".join(model), shell)
        return None

    def result_of(self, asked: Ask) -> str | None:
        """Return the id of the request whose result is asked for, None where none is."""
        match (asked.method, *asked.parts):
            case ("GET", *app, "requests", request_id, "response") if app:
                return request_id
            case ("GET", *app, "requests", request_id) if app and app[0] != "v1":
                return request_id
        return None

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Return an error in the API's own form."""
        return Reply(status, {"detail": message}, headers or {})

    def trouble(self, fault: str) -> Reply:
        """Return what a gateway says, in the API's own form, that does not know what became of a submission."""
        if fault == "code_504_cut":
            return Reply(400, {}, raw=_CUT_TYPE)
        words = "the upstream server did not answer in time"
        return Reply(_TROUBLES[fault], {"detail": words, "error_type": "request_timeout"})

    def refusal_in_200(self) -> Reply:
        """Return an error in the API's own form that comes with HTTP 200, and stands for a bad request."""
        return Reply(200, {"detail": "the image is too small", "error_type": "bad_request"})

    def _submit(self, world: World, asked: Ask, model: str, shell: Shell) -> Reply:
        within = _number(next((asked.headers[name] for name in _START if name in asked.headers), None), math.inf)
        came = world.submit(model, asked.body, _token(asked), shell.now, judged=False, start_within=max(1.0, within))
        if isinstance(came, SubmissionRefused):
            return self._refusal(came)
        if came.request is None:
            fault = str(came.fault)
            may_be = fault.startswith(("error_", "code_5", "code_4"))
            return server_trouble(fault, self) if may_be else turned_away(fault, shell.now, self)
        links = _links(came.request, shell)
        return spoiled(came.fault, links, _links(came.earlier, shell) if came.earlier else links, self)

    def _follow(self, world: World, asked: Ask, call: tuple[str, str, str, str], shell: Shell) -> Reply:
        """Answer about a request that was accepted."""
        method, app, request_id, what = call
        known = world.request(request_id)
        if known and app != _app(known.model):  # the path of the submission is not that of the request
            return Reply(405, {"detail": "Method Not Allowed"})
        if method != ("PUT" if what == "cancel" else "GET"):
            return Reply(405, {"detail": "Method Not Allowed"})
        read = self._read(world, asked, request_id, shell)
        if isinstance(read, Reply):
            return read
        match what:
            case "status":
                return _status(world, read.request)
            case "cancel":
                return self._cancel(world, read.request, shell)
            case _:
                return self._result(world, read.request, shell)

    def _result(self, world: World, request: Request, shell: Shell) -> Reply:
        headers = {"x-fal-request-id": request.id}
        standing = world.standing(request)
        if standing.word is RequestState.CANCELLED:
            return Reply(499, {"detail": "Request was cancelled", "error_type": "client_cancelled"}, headers)
        if standing.word is not RequestState.COMPLETED:
            return Reply(400, {"detail": "Request is still in progress"}, headers)
        if request.error:
            return _failure(request, headers)
        there = world.has_output(request, shell.now)
        body = _output(world, request, shell) if there else {"images": [], "description": ""}
        unit = _unit(world, request.model)
        return Reply(200, body, {**headers, "x-fal-billable-units": f"{request.price / unit:.6g}"} if unit else headers)

    def _cancel(self, world: World, request: Request, shell: Shell) -> Reply:
        if world.standing(request).word is RequestState.COMPLETED:
            return Reply(400, {"status": "ALREADY_COMPLETED"})
        world.cancel(request.id, shell.now)  # one that runs may still be completed
        return Reply(202, {"status": "CANCELLATION_REQUESTED"})

    def _past(self, world: World, asked: Ask, shell: Shell) -> Reply:
        """Answer with a page of the list of past requests."""
        model, wanted = asked.query.get("endpoint_id", ""), asked.query.get("request_id")
        if not world.knows(_token(asked)):
            return self._refusal(_NO_TOKEN)
        if model not in world.models:
            return Reply(404, {"detail": f"no such endpoint: {model}", "error_type": "not_found"})
        try:
            since = _time(asked.query.get("start"), shell.now - 86_400)
            until = _time(asked.query.get("end"), math.inf)
            size, first = int(asked.query.get("limit", 50)), int(asked.query.get("cursor", 0))
        except ValueError as wrong:
            return Reply(422, {"detail": [{"loc": ["query"], "msg": str(wrong), "type": "value_error"}]})
        if not 1 <= size <= _MOST_LISTED or first < 0:
            return Reply(422, {"detail": [{"loc": ["query"], "msg": "limit is 1 to 100", "type": "value_error"}]})
        listed = world.past(model, 0.0 if wanted else since, shell.now)
        listed = [one for one in listed if wanted == one.id or (wanted is None and one.accepted_at < until)]
        whole = asked.query.get("expand") == "payloads"
        page = [_item(one, shell.now, whole=whole) for one in listed[first : first + size]]
        more = first + size < len(listed)
        return Reply(200, {"items": page, "next_cursor": str(first + size) if more else None, "has_more": more})

    def _prices(self, world: World, asked: Ask) -> Reply:
        if not world.knows(_token(asked)):
            return self._refusal(_NO_TOKEN)
        names = asked.query.get("endpoint_id", "").split(",")
        listed = [
            {"endpoint_id": name, "unit_price": unit, "unit": "units", "currency": "USD"}
            for name in names
            if (unit := _unit(world, name))
        ]
        return Reply(200, {"prices": listed, "next_cursor": None, "has_more": False})

    def _catalogue(self, world: World, asked: Ask) -> Reply:
        if not world.knows(_token(asked)):
            return self._refusal(_NO_TOKEN)
        name = asked.query.get("endpoint_id", "")
        model = world.models.get(name, {})
        if model.get("provider") != self.name:
            return Reply(404, {"detail": f"no such endpoint: {name}", "error_type": "not_found"})
        document = {
            "openapi": "3.0.4",
            "paths": {
                f"/{name}": {
                    "post": {
                        "requestBody": {
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}}
                        }
                    }
                }
            },
            "components": {"schemas": {"Input": model["input_schema"]}},
        }
        facts = {"display_name": model.get("display_name"), "category": model["categories"][0], "status": "active"}
        return Reply(200, {"models": [{"endpoint_id": name, "metadata": facts, "openapi": document}]})

    def _read(self, world: World, asked: Ask, request_id: str, shell: Shell) -> Reading | Reply:
        read = world.read(request_id, _token(asked), shell.now)
        if isinstance(read, SubmissionRefused):
            return self._refusal(read)
        if read.fault == "read_other":
            other = world.before(read.request)
            named = {"request_id": f"{request_id[::-1]}0", "status": "COMPLETED"}
            return _status(world, other) if other else Reply(200, named)
        return misread(read.fault, _status(world, read.request), self) if read.fault else read

    def _refusal(self, refused: SubmissionRefused) -> Reply:
        if refused.why is RefusalReason.MISSING:
            return Reply(404, {"status": "NOT_FOUND"})
        if refused.why is RefusalReason.MODEL:
            return Reply(404, {"detail": f"Application {refused.message.rpartition(' ')[2]!r} not found"})
        status, words, kind = _REFUSALS[refused.why]
        after = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
        return Reply(status, {"detail": words, **({"error_type": kind} if kind else {})}, after)


_NO_TOKEN: Final = SubmissionRefused(RefusalReason.TOKEN, "invalid token")


def _token(asked: Ask) -> str:
    given = asked.headers.get("authorization", "")
    return given.removeprefix("Key ").strip() if given.startswith("Key ") else ""


def _number(text: str | None, otherwise: float) -> float:
    """Return the number that a header has, or what counts where it has none."""
    try:
        return otherwise if text is None else float(text)
    except ValueError:
        return otherwise


def _time(text: str | None, otherwise: float) -> float:
    """Return the stamp that a text has, or what counts where there is none. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp() if text else otherwise


def _app(model: str) -> str:
    parts = model.split("/")
    return "/".join(parts[: 3 if parts[0] in _THREE_PARTS else 2])


def _unit(world: World, model: str) -> float | None:
    """Return the listed price of a model's unit in USD."""
    unit = world.models.get(model, {}).get("prices", {}).get("usd_per_unit")
    return None if unit is None else float(unit)


def _links(request: Request, shell: Shell) -> dict[str, Any]:
    """Return what a submission is answered; the documents end a result's URL in `/response`, real answers do not."""
    base = f"{shell.base}/{_app(request.model)}/requests/{quote(request.id, safe='')}"
    return {
        "request_id": request.id,
        "response_url": f"{base}/response" if request.place % 2 else base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
        "queue_position": 0,
    }


def _status(world: World, request: Request) -> Reply:
    standing = world.standing(request)
    body: dict[str, Any] = {"status": _STATES.get(standing.word, "COMPLETED"), "request_id": request.id}
    if standing.word is RequestState.QUEUED:
        return Reply(202, {**body, "status": "IN_QUEUE", "queue_position": standing.position - 1})
    if standing.word is RequestState.WORKING:
        return Reply(202, {**body, "logs": None})
    if standing.word is RequestState.CANCELLED:
        return Reply(200, {**body, "error": "Request was cancelled", "error_type": "client_cancelled"})
    if standing.word is RequestState.COMPLETED and request.error:
        _, kind = _FAILURES[request.why or RefusalReason.FAILED]
        body |= {"error": request.error, "error_type": kind}
    seconds = (request.ended_at or 0.0) - (request.started_at or request.ended_at or 0.0)
    return Reply(200, {**body, "metrics": {"inference_time": round(seconds, 3)}})


def _failure(request: Request, headers: Mapping[str, str]) -> Reply:
    """Answer as the model does that failed."""
    status, kind = _FAILURES[request.why or RefusalReason.FAILED]
    said = {**headers, "x-fal-error-type": kind}
    if status != 422:  # noqa: PLR2004
        timeout = {"x-fal-request-timeout-type": "user"} if request.why is RefusalReason.TIMEOUT else {}
        return Reply(status, {"detail": request.error, "error_type": kind}, {**said, **timeout})
    where = ["body", "image_urls" if request.why is RefusalReason.IMAGE else "prompt"]
    return Reply(status, {"detail": [{"loc": where, "msg": request.error, "type": kind, "url": ""}]}, said)


def _output(world: World, request: Request, shell: Shell) -> dict[str, Any]:
    if "video" in str(world.models[request.model].get("categories")):
        return {"video": {"url": shell.file(request, 1, "webm"), "content_type": "video/webm"}}
    suffix = str(request.inputs.get("output_format", "png"))
    images = [
        {"url": shell.file(request, index, suffix), "content_type": f"image/{suffix}", "file_name": f"{index}.{suffix}"}
        for index in range(1, request.count + 1)
    ]
    return {"images": images, "description": ""}


def _item(request: Request, now: float, *, whole: bool) -> dict[str, Any]:
    """Return a request as the list of past ones shows it."""
    ended = {} if request.ended_at is None or request.ended_at > now else {"ended_at": _stamp(request.ended_at)}
    item = {
        "request_id": request.id,
        "endpoint_id": request.model,
        "sent_at": _stamp(request.accepted_at),
        "started_at": _stamp(request.started_at or request.accepted_at),
        **ended,
    }
    return {**item, "json_input": request.inputs, "json_output": {}} if whole else item


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
