"""Every fault of the far side: what the job becomes, what its user reads, and that docs/faults.md says the same."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batcher.provider import PROVIDERS
from batcher.sandbox.faults import FAULTS
from tests.nights.cases import CASES, Case, play, table

ROOT = Path(__file__).parent.parent.parent
QUICK = [case for case in CASES if case.quick and case.name in FAULTS]


def test_every_fault_has_a_case() -> None:
    assert {case.name for case in CASES} >= set(FAULTS)


@pytest.mark.parametrize("protocol", PROVIDERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_makes_of_a_job_what_is_promised(case: Case, protocol: str) -> None:
    seen = play(case, protocol)
    assert (seen.becomes, seen.exit_code) == case.expected(protocol, seen.bought), seen
    assert seen.bought == case.bought or (case.bought < 0 and seen.bought <= 1), "it was bought more than once"
    assert seen.reads or seen.becomes == "done"


@pytest.mark.long
def test_the_table_in_the_docs_is_what_the_tests_see() -> None:
    assert table() in (ROOT / "docs" / "faults.md").read_text(), "python -m tests.nights.cases prints the table"


@contextmanager
def sandbox(folder: Path, protocol: str, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "batcher.sandbox", "--protocol", protocol, "--dir", str(folder)]
    with subprocess.Popen(
        [*command, "--until-stdin-ends", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(20)


@pytest.mark.long
@pytest.mark.parametrize("protocol", PROVIDERS)
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_same_over_real_http(case: Case, protocol: str, tmp_path: Path) -> None:
    count = int(case.scenario.get("jobs", 1))
    (tmp_path / "m.yaml").write_text(
        f"model: google/nano-banana/pro/text-to-image\nprovider: {protocol}\ninputs: {{output_format: jpeg}}\n"
        f"jobs: [{', '.join(f'{{prompt: p{n}}}' for n in range(count))}]\n"
    )
    traits = PROVIDERS[protocol].traits
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), traits.token_names[0]: "a-token-of-some-length"}
    environ["PYTHONPATH"] = str(ROOT)
    share = 1.0 if case.ends is None else 0.5  # half of all, where it is to pass
    options = ("--latency", "0.3", "--sigma", "0.1", "--seed", "5")
    command = [sys.executable, "-m", "batcher"]
    with sandbox(tmp_path / "sandbox", protocol, "--fault", f"{case.name}={share}", *options) as base:
        environ |= {traits.api.variable: base, traits.account.variable: base}
        done = subprocess.run(
            [*command, "run", "m.yaml", "-j", "1", "-o", "out"],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stderr
        listed = subprocess.run(
            [*command, "jobs", "out", "--json"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
    job = json.loads(listed.stdout.splitlines()[-1])
    kind = f" `{job['error']['kind']}`" if job["error"] else ""
    entries = [json.loads(line) for line in (tmp_path / "sandbox" / "journal.jsonl").read_text().splitlines()]
    bought = sum(entry.get("inputs", {}).get("prompt") == job["inputs"]["prompt"] for entry in entries)
    assert (f"{job['state']}{kind}", done.returncode) == case.expected(protocol, bought), done.stderr
    assert len(entries) <= count, "something was bought more than once"
