"""Every fault, and what a job that meets it becomes: typed by hand, played in simulated time, and written as a table.

`python -m tests.nights.cases` plays them all and prints the table of `docs/faults.md`.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batcher.ledger.reader import Reader
from batcher.provider import PROVIDERS
from batcher.sandbox.faults import FAULTS
from batcher.show import words
from tests.nights.play import Life, Scenario

UNCERTAIN = "uncertain `lost`"


@dataclass(frozen=True)
class Case:
    """One fault, met by one job (or by the second of two)."""

    name: str
    becomes: str
    """State, and kind where there is one."""
    exit_code: int = 0
    does: str = ""
    """Where the sandbox has no name for it."""
    ends: float | None = None
    """Seconds after which all goes well again."""
    scenario: dict[str, Any] = field(default_factory=dict)
    quick: bool = True
    """It takes seconds in real time too."""
    bought: int = 1
    """Requests that the server accepted for the job."""
    listed: bool = True
    """Where the vendor lists past requests, this one comes to be among them."""

    def expected(self, protocol: str, bought: int) -> tuple[str, int]:
        """Return what the job becomes and the exit code, at a provider, where the server accepted so many requests.

        A request that was accepted, and is listed, is found: only what was not accepted stays uncertain there.
        """
        found = PROVIDERS[protocol].history is not None and self.listed and bought > 0
        return ("done", 0) if found and self.becomes == UNCERTAIN else (self.becomes, self.exit_code)


@dataclass(frozen=True)
class Observed:
    becomes: str
    exit_code: int
    reads: str
    bought: int
    took: float


CASES = [
    *(Case(name, "done", ends=30.0) for name in ("busy", "busy_date", "busy_bare", "full")),
    Case("reset", UNCERTAIN, 1, bought=0),
    Case("lose", UNCERTAIN, 1),
    Case("cut_early", UNCERTAIN, 1),
    Case("cut_late", "done"),
    Case("redirect", UNCERTAIN, 1, bought=0),
    *(Case(f"error_{code}", UNCERTAIN, 1, bought=-1) for code in (408, 500, 502, 503, 504)),
    *(
        Case(name, UNCERTAIN, 1, bought=-1)
        for name in ("code_503", "code_504", "code_500_in_200", "code_408", "code_504_cut")
    ),
    *(Case(name, "done") for name in ("cut_clean", "junk", "bad_byte", "absurd", "refusal_with_id")),
    Case("buried_id", UNCERTAIN, 1),
    Case("html", UNCERTAIN, 1),
    Case("portal", UNCERTAIN, 1, bought=0),
    Case("not_http", UNCERTAIN, 1, bought=0),
    Case("huge", "done"),
    Case("slow", "done"),
    Case("code_in_200", "failed `invalid`", 1, bought=0),
    Case("same_id", UNCERTAIN, 1, scenario={"jobs": 2, "concurrency": 1}),
    Case("strange_id", "done"),
    Case("foreign_urls", "done"),
    Case("fail", "failed `failed`", 1),
    Case("refuse", "failed `refused`", 1),
    Case("stuck", "failed `timeout`", 1, quick=False),
    Case("backwards", "done"),
    Case("odd_word", "done"),
    Case("no_stamps", "done"),
    Case("clock_off", "done"),
    Case("no_output", "failed `no_output`", 1, quick=False),
    Case("late_output", "done"),
    Case("file_scheme", "failed `unfetched`", 1),
    Case("bill_high", "done"),
    Case("gone", "failed `gone`", 1, quick=False),
    Case("forgotten", "done", quick=False),
    Case("unlisted", "done"),
    Case(
        "lost and never listed",
        UNCERTAIN,
        1,
        does="accepted, the answer is lost, and no list ever shows it",
        scenario={"mishaps": {"lose": 1.0, "unlisted": 1.0}},
        listed=False,
    ),
    *(Case(name, "done", ends=20.0) for name in ("stumble", "read_busy", "read_html", "read_cut", "read_reset")),
    Case("read_other", "done", ends=20.0, scenario={"jobs": 2}),
    Case(
        "answers mixed up",
        "running",
        69,
        does="each poll is answered about another request, from the first on",
        scenario={"jobs": 4, "mishaps": {"read_other": 1.0}},
        quick=False,
    ),
    Case("tear", "done", ends=20.0),
    Case("file_late", "done"),
    Case("file_gone", "failed `expired`", 1, quick=False),
    Case("file_500", "failed `unfetched`", 1, quick=False),
    Case("file_loop", "failed `unfetched`", 1),
    Case("file_short", "failed `bad_output`", 1),
    Case("file_wrong", "failed `bad_output`", 1),
    Case("file_bomb", "failed `bad_output`", 1),
    Case("file_away", "done"),
    Case(
        "outage of 5 minutes",
        "done",
        does="connections are refused for five minutes",
        scenario={"outages": [(0.0, 300.0)]},
        quick=False,
    ),
    Case(
        "outage of an hour",
        "done",
        does="connections are refused for an hour, while the job runs",
        scenario={"outages": [(0.5, 3600.0)]},
        quick=False,
    ),
    Case(
        "outage beyond patience",
        "pending",
        69,
        does="connections are refused for longer than `retry.patience`",
        scenario={"outages": [(0.0, 30_000.0)]},
        quick=False,
        bought=0,
    ),
]


def play(case: Case, protocol: str = "runcomfy") -> Observed:
    """Let a job meet the fault at a provider; return what it is at the end, and what its user reads."""
    faults = {case.name: 1.0} if case.name in FAULTS else {}
    scenario = Scenario(
        **{
            "protocol": protocol,
            "jobs": 1,
            "seed": 5,
            "concurrency": 4,
            "mishaps": faults,
            "mishaps_end": case.ends,
            **case.scenario,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        life = Life(scenario, Path(folder), 0, None)
        try:
            code = life.loop.run_until_complete(life._run())
        finally:
            life.loop.close()
        with Reader(Path(folder) / "out") as reader:
            job, _ = list(reader.jobs())[-1]
            held = [row["facts"] for row in reader._connection.execute("SELECT facts FROM events WHERE type = 'Held'")]
            warned = [
                row["facts"]
                for row in reader._connection.execute("SELECT facts FROM events WHERE type IN ('Warned', 'Silence')")
            ]
            stopped = reader.stopped()
        prompt = job.spec.inputs["prompt"]
        accepted = [entry for entry in life.world.journal if entry.get("inputs", {}).get("prompt") == prompt]
        kind = f" `{job.kind}`" if job.kind else ""
        reads = job.message if job.kind else (stopped.message if stopped else "")
        if not reads and warned:
            reads = json.loads(warned[0])["message"]
        if not reads and held:
            facts = json.loads(held[0])
            reads = words.held(facts["why"], facts["seconds"], reached=facts["reached"]).partition(";")[0]
        return Observed(f"{job.state}{kind}", code, reads or "", len(accepted), life.loop.now)


def does(case: Case) -> str:
    return case.does or FAULTS[case.name].does


def table() -> str:
    """Play every case at every provider, and write the table."""
    names = [*PROVIDERS]
    titles = " | ".join(f"at {PROVIDERS[name].traits.title} the job becomes" for name in names)
    lines = [
        f"| fault | what the far side does | {titles} | the user reads |",
        "| --- | --- |" + " --- |" * (len(names) + 1),
    ]
    for case in CASES:
        seen = [play(case, name) for name in names]
        becomes = " | ".join(f"{one.becomes} (exit {one.exit_code})" for one in seen)
        reads = seen[0].reads.replace("|", "\\|")
        lines.append(f"| `{case.name}` | {does(case)} | {becomes} | {reads} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
