"""Bugs planted on purpose into a copy of the package: each breaks a promise, and some night must notice."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import batcher

PACKAGE = Path(batcher.__file__).parent


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    right: str
    wrong: str


BUGS = [
    Bug(
        "resubmits on recovery",
        "engine/rules.py",
        'Move(State.UNCERTAIN, Kind.CRASH, "the process ended while the submission was on its way")',
        'Move(State.PENDING, message="surely it was not accepted")',
    ),
    Bug(
        "posts before the intent is on disk",
        "engine/legs.py",
        "        return Move(State.SUBMITTING)",
        "        self._answers = getattr(self, '_answers', {})\n"
        "        self._answers[job.id] = await self._tools.wire.send(\n"
        "            runcomfy.submit(job.spec.model, self._bodies[job.id])\n"
        "        )\n"
        "        return Move(State.SUBMITTING)",
    ),
    Bug(
        "resubmits when the answer is lost",
        "engine/rules.py",
        "return Move(State.UNCERTAIN, Kind.LOST, message, evidence=evidence)",
        "return Move(State.PENDING, message=message, delay=1.0)",
    ),
]
ALSO = {
    "posts before the intent is on disk": (
        "engine/legs.py",
        "answer = await self._tools.wire.send(runcomfy.submit(job.spec.model, request))",
        "answer = self._answers.pop(job.id)",
    )
}


def plant(bug: Bug, folder: Path) -> None:
    """Copy the package into a folder, with the bug in it."""
    shutil.copytree(PACKAGE, folder / "batcher", ignore=shutil.ignore_patterns("__pycache__"))
    changes = [(bug.file, bug.right, bug.wrong), *([ALSO[bug.name]] if bug.name in ALSO else [])]
    for name, right, wrong in changes:
        file = folder / "batcher" / name
        text = file.read_text()
        assert text.count(right) == 1, f"{bug.name}: {right!r} stands {text.count(right)} times in {name}"
        file.write_text(text.replace(right, wrong))
