import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.real.conftest import api, batcher, nursery, until

__all__ = ["api", "batcher", "nursery", "until"]

PHOTOS = Path(__file__).parents[2] / "manifests" / "photos"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
MANIFEST = f"""model: google/nano-banana/pro/edit
name: {json.dumps(EVIL)}
inputs:
  prompt: "Put the {{{{ title }}}} on {{{{ scene }}}}."
  image_urls: ["photos/{{{{ photo }}}}"]
  aspect_ratio: "4:5"
  resolution: 1K
  output_format: jpeg
jobs:
  - {{title: "mug & co", photo: mug.jpg, sku: "a#1 50%"}}
  - {{title: {json.dumps(EVIL)}, photo: vase.jpg, sku: b}}
  - {{title: größe 磨砂, photo: bottle.jpg, sku: "ü 磨"}}
matrix:
  scene: [white marble, a slate table top]
output: {{name: "{{{{ sku }}}}/{{{{ scene }}}}"}}
"""


def rehearse(folder: Path, *arguments: str, sandbox: str = "") -> int:
    """Run our command on a quick sandbox; give its exit code."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("RUNCOMFY_", "BATCHER_"))}
    environ |= {"HOME": str(folder), "BATCHER_SANDBOX_ARGS": f"--speed 20 {sandbox}"}
    command = [sys.executable, "-m", "batcher", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, timeout=90, check=False).returncode


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three products in two scenes, with what means something in HTML and in addresses; one job failed."""
    return _once(tmp_path_factory, "rehearsed", _make)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of mixed shapes in two scenes, sampled six times each; the prompt was edited once."""
    return _once(tmp_path_factory, "mixed", _make_mixed)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a run directory that is made once for all workers: whoever comes first makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "out/report.html").exists():
            make(folder)
    return folder / "out"


def _make_mixed(folder: Path) -> None:
    for name, size in (("wide", (900, 500)), ("tall", (500, 900)), ("square", (600, 600))):
        Image.effect_noise(size, 40).convert("RGB").save(folder / f"{name}.jpg")
    text = (
        "model: google/nano-banana/pro/edit\nname: mixed\n"
        "inputs:\n  prompt: PROMPT on {{ scene }}\n  image_urls: ['{{ path }}']\n"
        "jobs: {glob: '*.jpg'}\nmatrix: {scene: [marble, slate]}\nrepeat: REPEAT\n"
        "output: {name: '{{ stem }}/{{ scene }}-{{ sample }}'}\n"
    )
    for prompt, repeat in (("soft", "1"), ("hard", "6")):
        (folder / "m.yaml").write_text(text.replace("PROMPT", prompt).replace("REPEAT", repeat))
        assert rehearse(folder, "run", "m.yaml", "--sandbox", "-o", "out") == 0
    assert rehearse(folder, "report", "out") == 0


def _make(folder: Path) -> None:
    shutil.copytree(PHOTOS, folder / "photos")
    (folder / "m.yaml").write_text(MANIFEST)
    assert rehearse(folder, "run", "m.yaml", "--sandbox", "-o", "out", "--limit", "1", sandbox="--fault fail=1") == 1
    assert rehearse(folder, "run", "m.yaml", "--sandbox", "-o", "out") == 1
    assert rehearse(folder, "report", "out") == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a browser. It runs an event loop of its own, so it must be gone before tests that run one."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.fail("there is no Chromium: install Debian's package, or say where it is in CHROMIUM")
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
