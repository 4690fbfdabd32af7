"""A name with an IPv6 address that leads nowhere, beside an IPv4 address that works: as in half the offices of the world."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crashes.batch import ROOT

APART = """
set -e
ip link set lo up
ip tuntap add hole mode tap
ip addr add 10.99.0.1/24 dev hole
ip -6 addr add fd00::1/64 dev hole nodad
ip link set hole up
mount --bind hosts /etc/hosts
exec "$@"
"""
RUN = """
import os, subprocess, sys, time
from urllib.parse import urlsplit
sandbox = subprocess.Popen(
    [sys.executable, "-m", "batcher.sandbox", "--dir", "sandbox", "--until-stdin-ends", "--latency", "0.2"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
port = urlsplit(sandbox.stdout.readline().strip()).port
env = {**os.environ, "RUNCOMFY_MODEL_API_BASE": f"http://localhost:{port}", "RUNCOMFY_TOKEN": "a-token-of-some-length"}
begun = time.monotonic()
code = subprocess.run([sys.executable, "-m", "batcher", "run", "m.yaml", "-o", "out", "-j", "4"], env=env).returncode
print("took", time.monotonic() - begun, flush=True)
sandbox.stdin.close()
sandbox.wait(30)
sys.exit(code)
"""


def apart(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command where the network is its own: loopback, and a wire on which nobody answers."""
    (folder / "hosts").write_text("fd00::2 localhost\n127.0.0.1 localhost\n")
    return subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", APART, "sh", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.long
def test_an_address_that_leads_nowhere_costs_a_moment_and_no_job(tmp_path: Path) -> None:
    if not (shutil.which("ip") and shutil.which("unshare")) or apart(tmp_path, "true").returncode:
        pytest.skip("a network of one's own is made by root only, with ip and unshare")
    found = apart(tmp_path, "getent", "ahosts", "localhost").stdout
    assert found.startswith("fd00::2") and "127.0.0.1" in found, "the address that leads nowhere comes first"
    (tmp_path / "m.yaml").write_text(
        "model: google/nano-banana/pro/text-to-image\njobs:\n" + "".join(f"  - {{prompt: p{n}}}\n" for n in range(12))
    )
    done = apart(tmp_path, sys.executable, "-c", RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.split("took")[1].split()[0]) < 30
    assert len(list((tmp_path / "out" / "files").glob("*.json"))) == 12
    report = apart(tmp_path, sys.executable, "-m", "batcher", "status", "out", "--json")
    assert json.loads(report.stdout)["states"]["done"] == 12
