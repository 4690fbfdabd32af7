"""The sandbox's face that speaks RunComfy's Model API. Pure."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from batcher.sandbox.face import Ask, Shell
from batcher.sandbox.replies import Reply, misread, server_trouble, spoiled, turned_away
from batcher.sandbox.world import Reading, RefusalReason, Request, RequestState, SubmissionRefused, World

_CODES: Final = {
    RefusalReason.TOKEN: (401, 400004),
    RefusalReason.MODEL: (404, 400001),
    RefusalReason.INPUT: (422, 422001),
    RefusalReason.POLICY: (400, 400010),
    RefusalReason.BALANCE: (402, 400002),
    RefusalReason.OUTSTANDING: (429, 429001),
    RefusalReason.RATE: (429, 429001),
    RefusalReason.MISSING: (404, 404001),
}
"""HTTP status and the API's own code."""
_TROUBLES: Final = {
    "code_503": (503, 504001),
    "code_504": (504, 504001),
    "code_500_in_200": (200, 500001),
    "code_408": (408, 408001),
}
_CUT_CODE: Final = b'{"error_code": 504001, "error_message": "the upst'
_WORDS: Final = {
    RequestState.WORKING: "in_progress",
    RequestState.COMPLETED: "completed",
    RequestState.CANCELLED: "cancelled",
    RequestState.ODD: "rehydrating",
}
_CLOCK_OFF: Final = 7200.0
"""Seconds that the stamps of a result are off, of a server whose clock is."""


class RunComfyFace:
    """RunComfy's Model API."""

    name = "runcomfy"

    def answer(self, world: World, asked: Ask, shell: Shell) -> Reply | None:
        """Return the answer to a request; None where the protocol has no such path."""
        match (asked.method, *asked.parts):
            case ("POST", "v1", "models", *model) if model:
                return self._submit(world, asked, "/".join(model), shell)
            case ("GET", "v1", "models", *model):
                return self._catalogue(world, asked, "/".join(model))
            case ("GET", "v1", "requests", request_id, "status"):
                return self._status(world, asked, request_id, shell)
            case ("GET", "v1", "requests", request_id, "result"):
                return self._result(world, asked, request_id, shell)
            case ("POST", "v1", "requests", request_id, "cancel"):
                return self._cancel(world, asked, request_id, shell)
            case ("GET", "prod", "v2", "balance"):
                known = world.knows(_token(asked))
                body = {"balance_usd": world.left(), "currency": "USD"}
                return (
                    Reply(200, body)
                    if known
                    else self._refusal(SubmissionRefused(RefusalReason.TOKEN, "invalid token"))
                )
        return None

    def result_of(self, asked: Ask) -> str | None:
        """Return the id of the request whose result is asked for, None where none is."""
        match (asked.method, *asked.parts):
            case ("GET", "v1", "requests", request_id, "result"):
                return request_id
        return None

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Return an error in the API's own form."""
        return _error(status, status * 1000 + 1, message, headers)

    def trouble(self, fault: str) -> Reply:
        """Return what a gateway says, in the API's own form, that does not know what became of a submission."""
        if fault == "code_504_cut":
            return Reply(400, {}, raw=_CUT_CODE)
        status, code = _TROUBLES[fault]
        return _error(status, code, "the upstream server did not answer in time")

    def refusal_in_200(self) -> Reply:
        """Return an error in the API's own form that comes with HTTP 200, and stands for a bad request."""
        return _error(200, 400123, "the image is too small")

    def _submit(self, world: World, asked: Ask, model: str, shell: Shell) -> Reply:
        came = world.submit(model, asked.body, _token(asked), shell.now)
        if isinstance(came, SubmissionRefused):
            return self._refusal(came)
        if came.request is None:
            fault = str(came.fault)
            may_be = fault.startswith(("error_", "code_5", "code_4"))
            return server_trouble(fault, self) if may_be else turned_away(fault, shell.now, self)
        return spoiled(came.fault, _links(came.request.id), _links((came.earlier or came.request).id), self)

    def _status(self, world: World, asked: Ask, request_id: str, shell: Shell) -> Reply:
        read = self._read(world, asked, request_id, shell)
        return read if isinstance(read, Reply) else Reply(200, _state(world, read.request))

    def _result(self, world: World, asked: Ask, request_id: str, shell: Shell) -> Reply:
        read = self._read(world, asked, request_id, shell)
        if isinstance(read, Reply):
            return read
        request, body = read.request, _state(world, read.request)
        if body["status"] != "completed":
            return Reply(200, body)
        body |= _stamps(request, shell.now)
        if request.error:
            body |= {"status": "failed", "error": {"message": request.error}}
        else:
            there = world.has_output(request, shell.now)
            body |= {"status": "succeeded", "output": _output(world, request, shell) if there else {}}
        if asked.query.get("include_cost") == "true":
            body["cost"] = 0.0 if request.error else request.price
        return Reply(200, body)

    def _cancel(self, world: World, asked: Ask, request_id: str, shell: Shell) -> Reply:
        read = self._read(world, asked, request_id, shell)
        if isinstance(read, Reply):
            return read
        outcome = "cancelled" if world.cancel(request_id, shell.now) else "not_cancellable"
        return Reply(200, {**_state(world, read.request), "outcome": outcome})

    def _catalogue(self, world: World, asked: Ask, model: str) -> Reply:
        models = {key: one for key, one in world.models.items() if one.get("provider", self.name) == self.name}
        if not world.knows(_token(asked)):
            return self._refusal(SubmissionRefused(RefusalReason.TOKEN, "invalid token"))
        if not model:
            return Reply(200, {"models": list(models.values()), "total": len(models)})
        if model not in models:
            return self._refusal(SubmissionRefused(RefusalReason.MODEL, f"no such model: {model}"))
        return Reply(200, models[model])

    def _read(self, world: World, asked: Ask, request_id: str, shell: Shell) -> Reading | Reply:
        """Return what is asked about, or what is answered instead of it."""
        read = world.read(request_id, _token(asked), shell.now)
        if isinstance(read, SubmissionRefused):
            return self._refusal(read)
        if read.fault == "read_other":
            return self._of_another(world, read.request, shell)
        return misread(read.fault, Reply(200, _state(world, read.request)), self) if read.fault else read

    def _of_another(self, world: World, request: Request, shell: Shell) -> Reply:
        """Answer about another request: the one before, or one that nobody has."""
        other = world.before(request)
        if other is None:
            return Reply(200, {"request_id": f"{request.id[::-1]}0", "status": "completed"})
        body = _state(world, other)
        if body["status"] == "completed" and not other.error:
            body |= {"status": "succeeded", "output": _output(world, other, shell)}
        return Reply(200, body)

    def _refusal(self, refused: SubmissionRefused) -> Reply:
        status, code = _CODES[refused.why]
        after = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
        reply = _error(status, code, refused.message, after)
        return Reply(status, {**reply.body, "detail": list(refused.details)}, after) if refused.details else reply


def _error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"error_code": code, "error_message": message}, headers or {})


def _token(asked: Ask) -> str:
    return asked.headers.get("authorization", "").removeprefix("Bearer ").strip()


def _links(request_id: str) -> dict[str, str]:
    path = f"/v1/requests/{quote(request_id, safe='')}"
    return {
        "request_id": request_id,
        "status_url": f"{path}/status",
        "result_url": f"{path}/result",
        "cancel_url": f"{path}/cancel",
    }


def _state(world: World, request: Request) -> dict[str, Any]:
    standing = world.standing(request)
    if standing.word is RequestState.QUEUED:
        return {"request_id": request.id, "status": "in_queue", "queue_position": standing.position}
    return {"request_id": request.id, "status": _WORDS[standing.word]}


def _output(world: World, request: Request, shell: Shell) -> dict[str, Any]:
    video = "video" in str(world.models[request.model].get("categories"))
    suffix = "webm" if video else str(request.inputs.get("output_format", "png"))
    urls = [shell.file(request, index, suffix) for index in range(1, request.count + 1)]
    if video:
        return {"video": urls[0]}
    return {"image": urls[0]} if len(urls) == 1 else {"images": urls}


def _stamps(request: Request, now: float) -> dict[str, float]:
    if request.fault == "no_stamps":
        return {}
    off = (_CLOCK_OFF, -_CLOCK_OFF)[request.place % 2] if request.fault == "clock_off" else 0.0
    ended_at = request.ended_at or now
    return {"created_at": round(request.accepted_at - off, 3), "finished_at": round(ended_at - off, 3)}
