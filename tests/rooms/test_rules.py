"""What replies mean: every answer of the API, every reply's move."""

import json

import pytest

from batcher.clock import from_rfc3339
from batcher.engine import rules
from batcher.job import FailureKind, Job, Move, Output, Spec, State
from batcher.outputs.failures import Interrupted, UrlUnusable
from batcher.provider import runcomfy
from batcher.provider.calls import Answer, WireFault
from batcher.provider.replies import (
    Accepted,
    Busy,
    CancelDone,
    Cancelled,
    CancelTooLate,
    Completed,
    Finished,
    Forbidden,
    GenerationFailed,
    Lost,
    Misdirected,
    Missing,
    OutOfCredit,
    Queued,
    TurnedDown,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsent,
    Working,
)
from batcher.settings import Retry

NOW = 1_700_000_000.0


def answer(status: int, body: object, headers: dict[str, str] | None = None, *, whole: bool = True) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, headers or {}, content, whole)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(200, {"request_id": "r1"}), Accepted("r1")),
        (answer(202, {"request_id": 17}), Accepted("17")),
        (answer(200, b'{"request_id": "r1", "status_u', whole=False), Accepted("r1")),
        (answer(500, {"request_id": "r1"}), Accepted("r1")),
        (answer(429, {"error": "full", "request_id": "r1"}), Accepted("r1")),
        (answer(503, {"error": "full", "request_id": "r1"}), Accepted("r1")),
        (answer(504, {"error_code": 504001, "request_id": "r1"}), Accepted("r1")),
        (answer(422, {"error": "no", "request_id": "r1"}), Accepted("r1")),
        (answer(422, b'{"error": "half \\ud83d"}'), TurnedDown(FailureKind.INVALID, "half ? [HTTP 422]")),
        (answer(402, {"error": "pay"}), OutOfCredit("pay")),
        (answer(403, {"error_code": "400002", "error_message": "no balance"}), OutOfCredit("no balance (400002)")),
        (answer(200, {"code": 400004, "error": "who?"}), Unauthorized("who? (400004)")),
        (answer(401, b""), Unauthorized("HTTP 401")),
        (answer(403, b""), Forbidden("HTTP 403")),
        (answer(429, b"", {"retry-after": "7"}), Busy("HTTP 429", 7.0)),
        (answer(429, b"", {"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}), Busy("HTTP 429", 10.0)),
        (answer(429, b"", {"retry-after": "soon"}), Busy("HTTP 429")),
        (answer(503, {"error_message": "full"}), Busy("full", None, shared=False)),
        (answer(503, {"error_message": "full"}, {"retry-after": "2"}), Busy("full", 2.0)),
        (answer(404, b""), TurnedDown(FailureKind.INVALID, "HTTP 404")),
        (answer(415, b"x"), TurnedDown(FailureKind.INVALID, "HTTP 415")),
        (answer(200, b'\xef\xbb\xbf{"request_id": "r1"}'), Accepted("r1")),
        (answer(200, b'{"request_id": "r1", "status_url": "htt'), Accepted("r1")),
        (answer(200, b'junk {"request_id": "r1"}'), Accepted("r1")),
        (answer(200, b'{"request_id": "r1"}<!-- by the proxy -->'), Accepted("r1")),
        (answer(200, b'{"request_id": "r1", "note": "caf\xe9"}'), Accepted("r1")),
        (answer(200, b'{"request_id": "r1", "n": 1e999, "m": ' + b"9" * 6000 + b"}"), Accepted("r1")),
        (answer(200, b'{"request_id": "r1", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), Accepted("r1")),
        (answer(200, b'{"request_id": 17, "status_url": "htt'), Accepted("17")),
        (answer(504, b'{"request_id": "r1", "error_code": 504'), Accepted("r1")),
        (answer(504, {"error_code": 400001}), TurnedDown(FailureKind.INVALID, "error 400001 [HTTP 504]")),
        (answer(200, {"error_code": 503001}), Busy("error 503001", None, shared=False)),
        (answer(400, {"error": "unsafe prompt"}), TurnedDown(FailureKind.REFUSED, "unsafe prompt [HTTP 400]")),
        (WireFault(sent=False, message="refused"), Unsent("refused")),
        (
            WireFault(sent=True, message="reset"),
            Lost(
                "sent, and no readable answer came: reset",
                {"phase": "waiting for the answer", "exception": "reset"},
            ),
        ),
    ],
)
def test_a_submissions_answer_is_read_once(given: Answer | WireFault, expected: object) -> None:
    assert runcomfy.read_submit(given, NOW) == expected


@pytest.mark.parametrize("status", [200, 400, 500, 502, 504])
@pytest.mark.parametrize("code", [408001, 409001, 500001, 500123, 502000, 504001, 599999])
def test_a_code_of_the_servers_own_troubles_is_no_refusal(status: int, code: int) -> None:
    """A gateway accepts, and then answers 504 with 504001: `retry` bought such jobs twice, and no limit counted them."""
    found = runcomfy.read_submit(answer(status, {"error_code": code, "error_message": "upstream timed out"}), NOW)
    assert isinstance(found, Lost)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"data": {"request_id": "r-17-abc"}}', ["r-17-abc"]),
        (b'<html>{"request_id": "r-17-abc"', ["r-17-abc"]),
        (b'"{\\"request_id\\": \\"r-17-abc\\"}"', ["r-17-abc"]),
        (b'{"status_url": "/v1/requests/r-17-abc/status"}', ["r-17-abc"]),
        (b'"request_id": "r-1-abc", "request_id": "r-2-abc"', ["r-1-abc", "r-2-abc"]),
        (b"<html>no id here", []),
        (b'{"request_id": ".."}', []),
    ],
)
def test_what_may_be_an_id_is_shown_where_it_is_not_certain(body: bytes, ids: list[str]) -> None:
    found = runcomfy.read_submit(answer(200, body), NOW)
    assert isinstance(found, Lost)
    assert found.evidence.get("request_ids", []) == ids
    assert all(one in found.message for one in ids)


@pytest.mark.parametrize("status", [200, 204, 301, 307, 408, 500, 502, 503, 504])
def test_what_says_neither_yes_nor_no_is_lost(status: int) -> None:
    found = runcomfy.read_submit(answer(status, b"<html>"), NOW)
    assert isinstance(found, Lost)
    assert found.evidence["status"] == status


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(200, {"status": "in_queue", "queue_position": 4}), Queued(4)),
        (answer(200, {"status": "pending"}), Queued(None)),
        (answer(200, {"status": "in_progress"}), Working()),
        (answer(200, {"status": "PROCESSING"}), Working()),
        (answer(200, {"status": "completed"}), Completed()),
        (answer(200, {"status": "canceled"}), Cancelled()),
        (answer(200, {"status": "dreaming"}), Unknown("dreaming")),
        (answer(200, {"status": "failed", "error": {"message": "fell"}}), GenerationFailed(FailureKind.FAILED, "fell")),
        (
            answer(200, {"status": "failed", "error": ["a", 1], "cost": 0.1}),
            GenerationFailed(FailureKind.FAILED, '["a", 1]', 0.1),
        ),
        (
            answer(200, {"status": "failed", "error": "content policy"}),
            GenerationFailed(FailureKind.REFUSED, "content policy"),
        ),
        (answer(200, {"status": "succeeded", "output": {"image": "u"}, "cost": -1}), Finished(("u",), None, None)),
        (answer(200, {"status": "completed", "error": "no"}), GenerationFailed(FailureKind.FAILED, "no")),
        (answer(200, {"status": "succeeded", "output": {}}), Finished((), None, None)),
        (
            answer(200, {"status": "succeeded", "output": {"image": "u"}, "cost": "0.15", "finished_at": 5}),
            Finished(("u",), 0.15, 5.0),
        ),
        (
            answer(
                200, {"status": "succeeded", "output": {"images": ["a", {"url": "b"}], "videos": ["c"], "video": "a"}}
            ),
            Finished(("a", "b", "c"), None, None),
        ),
        (answer(200, {"request_id": "R1", "status": "completed"}), Completed()),
        (answer(200, {"request_id": "r-2", "status": "completed"}), Misdirected("r-2")),
        (answer(404, {"request_id": "r-2", "error_code": 404001}), Misdirected("r-2")),
        (answer(200, {"status": "completed", "error_message": "no"}), GenerationFailed(FailureKind.FAILED, "no")),
        (answer(200, {"status": "completed", "output": {"error": "no"}}), GenerationFailed(FailureKind.FAILED, "no")),
        (
            answer(200, {"status": "completed", "output": {"images": [f"u{n}" for n in range(2000)]}}),
            Finished(tuple(f"u{n}" for n in range(256)), None, None, 1744),
        ),
        (answer(200, {"status": "completed", "output": {"image": " u "}}), Finished(("u",), None, None)),
        (answer(404, b""), Missing("HTTP 404")),
        (answer(200, {"error_code": 404001}), Missing("error 404001")),
        (answer(401, b""), Unauthorized("HTTP 401")),
        (answer(200, {"error_code": 403001}), Forbidden("error 403001")),
        (answer(502, b""), Unavailable("HTTP 502", None, reached=True)),
        (answer(429, b"", {"retry-after": "3"}), Unavailable("HTTP 429", 3.0, reached=True)),
        (answer(200, b"<html>"), Unavailable("HTTP 200, an answer that says nothing", reached=True)),
        (answer(200, b"{", whole=False), Unavailable("the answer was cut off", reached=True)),
        (WireFault(sent=True, message="reset"), Unavailable("reset")),
    ],
)
def test_a_polls_answer_is_read_once(given: Answer | WireFault, expected: object) -> None:
    assert runcomfy.read_poll(given, NOW, "r-1") == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(200, {"outcome": "cancelled", "status": "cancelled"}), CancelDone()),
        (answer(200, {"outcome": "not_cancellable"}), CancelTooLate("not_cancellable")),
        (answer(404, b""), Missing("HTTP 404")),
        (answer(200, b"{}"), CancelTooLate("")),
        (WireFault(sent=True, message="reset"), Unavailable("reset")),
    ],
)
def test_a_cancellations_answer_is_read_once(given: Answer | WireFault, expected: object) -> None:
    found = runcomfy.read_cancel(given, NOW, "r-1")
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("reply", "proven", "expected"),
    [
        (Accepted("r"), True, Move(State.RUNNING, request_id="r")),
        (TurnedDown(FailureKind.INVALID, "m"), True, Move(State.FAILED, FailureKind.INVALID, "m")),
        (Busy("m", 9.0), True, Move(State.PENDING, message="m", delay=9.0, shared=True)),
        (Busy("m", None, shared=False), True, Move(State.PENDING, message="m", delay=2.0)),
        (Unsent("m"), True, Move(State.PENDING, message="m", delay=2.0, shared=True, unreached=True)),
        (Forbidden("m"), True, Move(State.FAILED, FailureKind.REFUSED, "m")),
        (Forbidden("m"), False, Move(State.PENDING, message="m")),
        (Unauthorized("m"), True, Move(State.PENDING, message="m")),
        (OutOfCredit("m"), True, Move(State.PENDING, message="m")),
        (Lost("m", {"a": 1}), True, Move(State.UNCERTAIN, FailureKind.LOST, "m", evidence={"a": 1})),
    ],
)
def test_a_submissions_reply_makes_a_move(reply: object, proven: bool, expected: Move) -> None:
    assert rules.after_submit(reply, 2.0, proven=proven) == expected  # type: ignore[arg-type]


def look(*replies: object, step: float = 100.0, timeout: float = 3600.0) -> tuple[float, Move | None]:
    """Show a job these replies, `step` seconds apart, as often as it takes; give when it moved, and the move."""
    watch = rules.Watch(since=0.0, moved_at=0.0)
    now = 0.0
    for number in range(1000):
        now += step
        reply = replies[min(number, len(replies) - 1)]
        watch = watch.seen(reply, now)  # type: ignore[arg-type]
        if move := rules.after_poll(reply, watch, Retry(job_timeout=timeout), now):  # type: ignore[arg-type]
            return now, move
    return now, None


def test_a_running_job_ends_in_each_of_its_ways() -> None:
    assert look(Finished(("a", "b"), 0.1, 5.0))[1] == Move(
        State.FETCHING, outputs=(Output(1, "a"), Output(2, "b")), billed_usd=0.1, completed_at=5.0
    )
    assert look(GenerationFailed(FailureKind.FAILED, "m", 0.1))[1] == Move(
        State.FAILED, FailureKind.FAILED, "m", billed_usd=0.1
    )
    assert look(Cancelled())[1] == Move(State.CANCELLED, message="cancelled at the server")


def test_a_time_out_runs_from_when_it_was_last_seen_to_get_on() -> None:
    at, move = look(Working(), step=100)
    assert move and (move.kind, at) == (FailureKind.TIMEOUT, 3700)
    moving = [Queued(position) for position in range(100, 0, -1)]
    at, move = look(*moving, Working(), step=100)
    assert move and (move.kind, at) == (FailureKind.TIMEOUT, 100 * 101 + 3600)
    at, move = look(Unknown("dreaming"), step=100)
    assert move and move.kind is FailureKind.TIMEOUT


def test_outputs_that_are_late_are_waited_for_ten_minutes() -> None:
    for empty in (Completed(), Finished((), 0.1, None)):
        at, move = look(Working(), empty, step=50)
        assert move and move.kind is FailureKind.NO_OUTPUT
        assert 650 <= at <= 700
    back_again = [Finished((), None, None)] * 11 + [Working()] + [Finished((), None, None)] * 11 + [Cancelled()]
    at, move = look(*back_again, step=50)
    assert move and move.to is State.CANCELLED, "a word that goes back starts the wait anew"
    assert look(Completed(), GenerationFailed(FailureKind.FAILED, "m"), step=50)[0] == 100
    assert [rules.next_look_for_outputs(seconds) for seconds in (0, 1, 10, 100, 500)] == [1, 1, 5, 50, 60]


def test_a_request_is_gone_after_ten_minutes_of_not_being_known() -> None:
    at, move = look(Working(), Missing("x"), step=50)
    assert move and move.kind is FailureKind.GONE
    assert 600 <= at <= 800
    assert look(Missing("x"), Missing("x"), Finished(("u",), None, None), step=50)[1] == Move(
        State.FETCHING, outputs=(Output(1, "u"),)
    )


def test_a_result_that_cannot_be_had_times_out_once_the_queue_says_completed() -> None:
    at, move = look(Completed(), Unavailable("x", reached=True), step=100)
    assert move and (move.kind, at) == (FailureKind.TIMEOUT, 3700)
    assert look(Unavailable("x", reached=True), step=100)[1] is None


def test_an_unavailable_service_never_ends_a_job() -> None:
    assert look(Unavailable("x"), step=1000)[1] is None


def test_a_dead_url_is_given_up_only_after_a_fresh_one_was_tried() -> None:
    trouble = rules.DownloadTrouble().dead(0.0)
    assert not trouble.to_refresh(599.0, 1800.0)
    assert trouble.to_refresh(600.0, 1800.0)
    assert not trouble.expired(10_000.0)
    renewed = rules.DownloadTrouble(refreshed=True).dead(600.0)
    assert not renewed.expired(1199.0)
    assert renewed.expired(1200.0)


def test_three_times_the_same_wrong_bytes_are_enough() -> None:
    trouble = rules.DownloadTrouble()
    for digest in "aabb":
        trouble = trouble.wrong(digest, 0.0)
    assert not trouble.bad()
    assert trouble.wrong("b", 0.0).bad()
    assert [n for n in range(1, 30) if _interrupted(n).to_refresh(0.0, 1800.0)] == [2, 12, 22]


def test_a_file_that_does_not_come_is_given_up_once_a_fresh_result_did_not_help() -> None:
    got, trouble = Interrupted("HTTP 500"), rules.DownloadTrouble().interrupted(10.0)
    assert rules.given_up(trouble, got, 1809.0, 1800.0) is None
    assert rules.given_up(trouble, got, 1810.0, 1800.0) is None and trouble.to_refresh(1810.0, 1800.0)
    early = trouble.renewed(1000.0)
    assert rules.given_up(early, got, 1900.0, 1800.0) is None and early.to_refresh(1900.0, 1800.0)
    again = trouble.renewed(1811.0).interrupted(1812.0)
    move = rules.given_up(again, got, 1812.0, 1800.0)
    assert move and (move.to, move.kind) == (State.FAILED, FailureKind.UNFETCHED)
    assert not again.to_refresh(1812.0, 1800.0)
    silent = trouble.renewed(1811.0, 500.0).interrupted(1812.0)
    assert rules.given_up(silent, got, 1812.0, 1800.0) is None, "the API's own silence does not count"
    never = rules.given_up(trouble, UrlUnusable("file:///x is not an http URL"), 10.0, 1800.0)
    assert never and never.kind is FailureKind.UNFETCHED


def _interrupted(times: int) -> rules.DownloadTrouble:
    trouble = rules.DownloadTrouble()
    for _ in range(times):
        trouble = trouble.interrupted(0.0)
    return trouble


def test_only_a_failed_generation_is_bought_again_and_only_if_allowed() -> None:
    for kind in FailureKind:
        job = Job(Spec("a", "n", "m", {}), State.FAILED, kind, "m", attempt=1)
        assert rules.bought_again(job, Retry()) is None
        assert (rules.bought_again(job, Retry(attempts=2)) is not None) == (kind is FailureKind.FAILED)


@pytest.mark.parametrize(
    "stamp",
    [1_700_000_000_123_456, 1e300, float("inf"), float("nan"), 10**400, "0001-01-01T00:00:00+14:00", -5, "soon"],
)
def test_a_stamp_that_can_be_no_time_is_none(stamp: object) -> None:
    """Each ended every start as a bug, when it was to be written into the sidecar."""
    assert from_rfc3339(stamp) is None
