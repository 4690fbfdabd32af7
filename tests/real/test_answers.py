"""Every way in which a submission may be answered, over real HTTP: what is certain is acted on, the rest is held."""

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from tests.real.api import (
    Api,
    Special,
    accepts_and_cuts,
    accepts_and_hangs_up,
    accepts_and_speaks_no_http,
    own,
    raw,
)
from tests.real.conftest import MODEL, Batcher, Until, end


def outcome(batcher: Batcher) -> dict[str, str | None]:
    (job,) = batcher("jobs", "runs/jobs", "--json").lines()
    return {"state": job["state"], "kind": (job["error"] or {}).get("kind")}


def redirect(target: str) -> Special:
    return raw(307, "", headers={"Location": target})


@pytest.mark.parametrize(
    "special",
    [
        accepts_and_hangs_up,
        accepts_and_speaks_no_http,
        raw(500, "oops"),
        raw(502, "<html>bad gateway</html>"),
        raw(503, "<html>a proxy's own page</html>"),
        raw(504, ""),
        raw(408, ""),
        own(504, 504001, "upstream timed out"),
        own(500, 500001, "an error of the API's own"),
        own(200, 502000, "upstream"),
        own(408, 408001, "too late"),
        raw(200, "<html>please sign in to the hotel's network</html>"),
        raw(200, "{}", "application/json"),
        redirect("https://elsewhere.invalid/"),
    ],
    ids=[
        "hang-up",
        "ssh",
        "500",
        "502",
        "bare-503",
        "504",
        "408",
        "504001",
        "500001",
        "502000",
        "408001",
        "portal",
        "neither-id-nor-code",
        "redirect",
    ],
)
def test_what_may_have_been_accepted_is_held_and_never_sent_again_unasked(
    batcher: Batcher, api: Api, special: Special
) -> None:
    api.specials = [special]
    assert batcher.run_csv(["a"]).code == 1
    assert outcome(batcher) == {"state": "uncertain", "kind": "lost"}
    assert len([path for method, path in api.requests if method == "POST"]) == 1


def test_an_uncertain_job_waits_for_the_users_word(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_hangs_up]
    assert batcher.run_csv(["a"]).code == 1
    assert batcher("resume", "runs/jobs").code == 1
    assert len(api.journal) == 1
    unasked = batcher("retry", "runs/jobs", "--state", "uncertain")
    assert (unasked.code, outcome(batcher)["state"]) == (64, "uncertain")
    assert "1 job may be billed twice, up to $0.15" in unasked.err
    assert batcher("retry", "runs/jobs", "--state", "uncertain", "--yes").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["at_risk"] == 0.15, "what may have been billed stays in the books"


@pytest.mark.parametrize(
    "special",
    [
        own(429, 429001, "slow down", {"Retry-After": "0"}),
        own(503, 503001, "overloaded"),
        raw(429, ""),
        raw(429, "", headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ],
    ids=["429-own", "503-own", "429-bare", "429-date"],
)
def test_what_was_not_accepted_for_want_of_room_is_sent_again(batcher: Batcher, api: Api, special: Special) -> None:
    api.specials = [None, special]
    assert batcher.run_csv(["a", "b"]).code == 0
    assert sorted(api.prompts()) == ["a", "b"]
    assert {job["attempts"] for job in batcher("jobs", "runs/jobs", "--json").lines()} == {1}


@pytest.mark.parametrize(
    ("special", "kind"),
    [
        (own(400, 400001, "bad model id"), "invalid"),
        (own(200, 400001, "bad model id, said with a 200"), "invalid"),
        (raw(422, json.dumps({"detail": "prompt too long"}), "application/json"), "invalid"),
        (raw(413, "too large"), "invalid"),
        (own(400, 400017, "violates our content policy"), "refused"),
    ],
    ids=["400", "code-in-200", "422", "413", "policy"],
)
def test_what_was_refused_for_good_is_failed_and_costs_nothing(
    batcher: Batcher, api: Api, special: Special, kind: str
) -> None:
    api.specials = [special]
    assert batcher.run_csv(["a"]).code == 1
    assert outcome(batcher) == {"state": "failed", "kind": kind}
    assert batcher("status", "runs/jobs", "--json").json()["cost_usd"]["worst_case"] == 0


def test_a_request_id_is_salvaged_from_an_answer_that_was_cut_off(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_cuts]
    assert batcher.run_csv(["a"]).code == 0
    assert len(api.journal) == 1


def test_an_id_that_another_job_has_makes_an_alarm(batcher: Batcher, api: Api) -> None:
    same = json.dumps({"request_id": "r-1"})
    api.specials = [None, raw(200, same, "application/json")]
    assert batcher.run_csv(["a", "b"], "-j", "1").code == 1
    states = {job["state"]: job for job in batcher("jobs", "runs/jobs", "--json").lines()}
    assert set(states) == {"done", "uncertain"}
    assert "ALARM" in states["uncertain"]["error"]["message"]


def test_an_id_that_looks_like_a_path_is_escaped(batcher: Batcher, api: Api, until: Until) -> None:
    api.specials = [raw(200, json.dumps({"request_id": "../../x"}), "application/json")]
    process = batcher.start("run", batcher.csv(["a"]), "--model", MODEL)
    until(lambda: any(method == "GET" for method, _ in api.requests))
    end(process)
    assert all(path.startswith("/v1/") for _, path in api.requests)


def test_a_forbidden_first_submission_is_a_matter_of_the_token(batcher: Batcher, api: Api) -> None:
    api.specials = [own(403, 403001, "not yours")] * 3
    assert batcher.run_csv(["a", "b"]).code == 77
    api.specials = [None, own(403, 403001, "not yours")]
    assert batcher("resume", "runs/jobs").code == 1
    assert batcher.states() == {"done": 1, "failed": 1}


def test_too_much_that_is_uncertain_stops_the_run(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_hangs_up] * 40
    (batcher.folder / "m.yaml").write_text(
        "model: google/nano-banana/pro/edit\njobs: jobs.csv\nretry: {max_uncertain: 4}\n"
    )
    batcher.csv([f"p{n}" for n in range(40)])
    done = batcher("run", "m.yaml", "-j", "2")
    assert done.code == 75
    found = batcher("status", "runs/m", "--json").json()
    assert found["stopped"]["reason"] == "uncertain"
    assert 5 <= found["states"]["uncertain"] <= 6


def test_too_many_failures_in_a_row_stop_the_run(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        "model: google/nano-banana/pro/edit\njobs: jobs.csv\nretry: {max_failures: 5}\n"
    )
    batcher.csv([f"INVALID {n}" for n in range(40)])
    assert batcher("run", "m.yaml", "-j", "2").code == 75
    assert batcher("status", "runs/m", "--json").json()["stopped"]["reason"] == "failures"


def test_uncertain_jobs_are_resubmitted_where_the_user_prefers_gaps_filled(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_hangs_up]
    (batcher.folder / "m.yaml").write_text(
        "model: google/nano-banana/pro/edit\njobs: jobs.csv\nretry: {uncertain: resubmit}\n"
    )
    batcher.csv(["a"])
    assert batcher("run", "m.yaml").code == 0
    assert api.prompts() == ["a", "a"]


@pytest.mark.long
def test_a_job_is_not_submitted_again_and_again_by_itself(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_hangs_up] * 9
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://images.invalid/0.png]}}\nretry: {{uncertain: resubmit}}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    assert len(api.journal) == 3 and batcher.states("runs/m") == {"uncertain": 1}
    assert batcher("resume", "runs/m").code == 1 and len(api.journal) == 3


def test_a_service_that_is_not_there_ends_a_run_after_the_patience_set(batcher: Batcher) -> None:
    done = batcher("run", batcher.csv(["a"]), "--model", "google/nano-banana/pro/edit", "--patience", "1s",
                   RUNCOMFY_MODEL_API_BASE="http://127.0.0.1:9")  # fmt: skip
    assert done.code == 69
    found = batcher("status", "runs/jobs", "--json").json()
    assert (found["states"]["pending"], found["stopped"]["reason"]) == (1, "unreachable")


def test_again_buys_a_done_job_anew_when_asked(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    (job,) = batcher("jobs", "runs/jobs", "--json").lines()
    assert batcher("retry", "runs/jobs", "--again", "--job", job["job_id"]).code == 64
    assert batcher("retry", "runs/jobs", "--again", "--job", job["job_id"], "--yes").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    assert api.prompts() == ["a", "a"]


@pytest.mark.long
def test_a_process_that_is_stopped_for_seconds_makes_nothing_uncertain(
    batcher: Batcher, api: Api, until: Until
) -> None:
    """With submissions on their way, idle connections, and jobs at work: SIGSTOP, and SIGCONT three seconds later."""
    api.stalls = True
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(8)]), "--model", MODEL, "-j", "4")
    until(lambda: len(api.journal) >= 1)
    os.killpg(process.pid, signal.SIGSTOP)
    api.stalls = False
    time.sleep(3.0)
    os.killpg(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert batcher.states() == {"done": 8}
    assert len(api.journal) == 8


@pytest.mark.long
class Impatient:
    """Stands before the API, and breaks each connection that is used a second time, as idle ones end in the world."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.base = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.broken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._once, args=(self._socket.accept()[0],), daemon=True).start()

    def _once(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            server.sendall(whole_message(client))
            client.sendall(whole_message(server))
            if client.recv(1):
                self.broken += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets it

    def close(self) -> None:
        self._socket.close()


def whole_message(source: socket.socket) -> bytes:
    """Read one request or answer, by its Content-Length."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += source.recv(65536)
    head, _, body = content.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += source.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.mark.long
def test_a_file_that_falls_silent_is_given_up_after_a_minute_and_fetched_anew(batcher: Batcher, api: Api) -> None:
    api.silent_files = 2
    begun = time.monotonic()
    done = batcher.run_csv(["a", "b", "c"])
    assert done.code == 0, done.err
    assert 55 < time.monotonic() - begun < 85
    assert len(api.journal) == 3 and batcher("verify", "runs/jobs").code == 0


def test_a_kept_connection_that_the_server_ends_makes_nothing_uncertain(batcher: Batcher, api: Api) -> None:
    api.delay = 0.6
    proxy = Impatient(int(api.base.rpartition(":")[2]))
    batcher.environ["RUNCOMFY_MODEL_API_BASE"] = proxy.base
    done = batcher.run_csv([f"p{n}" for n in range(12)], "-j", "4")
    proxy.close()
    assert done.code == 0, done.err
    assert batcher.states() == {"done": 12} and len(api.journal) == 12
    assert proxy.broken > 0, "no connection was used again: nothing was tried"


@pytest.mark.long
def test_a_host_that_swallows_connections_is_waited_for_and_nothing_is_uncertain(batcher: Batcher, api: Api) -> None:
    """What an IPv6 black hole does to those who believe in it: no refusal, no answer, nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue of connections that nobody accepts is full
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        done = batcher.run_csv(
            ["a"], "--patience", "1s", RUNCOMFY_MODEL_API_BASE=f"http://127.0.0.1:{hole.getsockname()[1]}"
        )
        for filler in fillers:
            filler.close()
    assert done.code == 69, done.err
    assert batcher.states() == {"pending": 1}
    assert api.journal == []
