"""What another process asks of a run at work: a small file each, so that the ledger keeps its one writer."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

FOLDER: Final = ".asks"


def leave(out: Path, ask: Mapping[str, object]) -> Path:
    """Leave a request for the run that is at work on this directory; its file is there until it was carried out."""
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    name = f"{len(list(folder.iterdir())):06d}-{os.getpid()}"
    draft, final = folder / f".{name}", folder / f"{name}.json"
    draft.write_text(json.dumps(ask), "utf-8")
    draft.replace(final)
    return final


def waiting(out: Path) -> list[Path]:
    """Give the requests that were left, oldest first."""
    try:
        return sorted((out / FOLDER).glob("*.json"))
    except OSError:
        return []


def answer(file: Path, said: Mapping[str, object]) -> None:
    """Say what came of a request, then take the request away: whoever left it waits for that."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
    draft.replace(file.with_suffix(".answer"))
    file.unlink(missing_ok=True)


def heard(file: Path) -> dict[str, Any]:
    """Read what came of a request that is no longer there, and take the answer away."""
    answered = file.with_suffix(".answer")
    try:
        said = json.loads(answered.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    answered.unlink(missing_ok=True)
    tidy(file.parent.parent)
    return dict(said)


def tidy(out: Path) -> None:
    """Remove the folder where nothing is left in it."""
    with suppress(OSError):
        (out / FOLDER).rmdir()


def forget(out: Path) -> None:
    """Remove what was left for a run whose process is gone."""
    for file in (out / FOLDER).glob("*"):
        file.unlink(missing_ok=True)
    tidy(out)
