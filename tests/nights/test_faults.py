"""Every fault of the far side: what the job becomes, what its user reads, and that docs/faults.md says the same."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batcher.sandbox.faults import FAULTS
from tests.nights.cases import CASES, Case, play, table

ROOT = Path(__file__).parent.parent.parent
QUICK = [case for case in CASES if case.quick and case.name in FAULTS]


def test_every_fault_has_a_case() -> None:
    assert {case.name for case in CASES} >= set(FAULTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_makes_of_a_job_what_is_promised(case: Case) -> None:
    seen = play(case)
    assert (seen.becomes, seen.exit_code) == (case.becomes, case.exit_code), seen
    assert seen.bought == case.bought or (case.bought < 0 and seen.bought <= 1), "it was bought more than once"
    assert seen.reads or case.becomes == "done"


@pytest.mark.long
def test_the_table_in_the_docs_is_what_the_tests_see() -> None:
    assert table() in (ROOT / "docs" / "faults.md").read_text(), "python -m tests.nights.cases prints the table"


@contextmanager
def sandbox(folder: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "batcher.sandbox", "--dir", str(folder), "--until-stdin-ends", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(20)


@pytest.mark.long
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_same_over_real_http(case: Case, tmp_path: Path) -> None:
    count = int(case.scenario.get("jobs", 1))
    (tmp_path / "m.yaml").write_text(
        "model: google/nano-banana/pro/text-to-image\ninputs: {output_format: jpeg}\n"
        f"jobs: [{', '.join(f'{{prompt: p{n}}}' for n in range(count))}]\n"
    )
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RUNCOMFY_TOKEN": "a-token-of-some-length"}
    share = 1.0 if case.ends is None else 0.5  # half of all, where it is to pass
    options = ("--latency", "0.3", "--sigma", "0.1", "--seed", "5")
    with sandbox(tmp_path / "sandbox", "--fault", f"{case.name}={share}", *options) as base:
        environ["RUNCOMFY_MODEL_API_BASE"] = base
        command = [sys.executable, "-m", "batcher"]
        done = subprocess.run(
            [*command, "run", "m.yaml", "-j", "1"],
            cwd=tmp_path,
            env={**environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stderr
        listed = subprocess.run(
            [*command, "jobs", "runs/m", "--json"],
            cwd=tmp_path,
            env={**environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
    job = json.loads(listed.stdout.splitlines()[-1])
    kind = f" `{job['error']['kind']}`" if job["error"] else ""
    assert (f"{job['state']}{kind}", done.returncode) == (case.becomes, case.exit_code), done.stderr
    accepted = (tmp_path / "sandbox" / "journal.jsonl").read_text().splitlines()
    assert len(accepted) <= count, "something was bought more than once"
