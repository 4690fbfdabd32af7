"""What another process asks of a run at work: a small file each, so that the ledger keeps its one writer."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = ".asks"


def leave(out: Path, ask: Mapping[str, object]) -> None:
    """Leave a request for the run that is at work on this directory."""
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    name = f"{len(list(folder.iterdir())):06d}-{os.getpid()}"
    draft = folder / f".{name}"
    draft.write_text(json.dumps(ask), "utf-8")
    draft.replace(folder / f"{name}.json")


def take(out: Path) -> list[Mapping[str, object]]:
    """Take the requests that were left, oldest first."""
    found: list[Mapping[str, object]] = []
    try:
        files = sorted((out / FOLDER).glob("*.json"))
    except OSError:
        return found
    for file in files:
        found.append(json.loads(file.read_text("utf-8")))
        file.unlink()
    return found


def forget(out: Path) -> None:
    """Remove what was left for a run that has ended."""
    take(out)
    folder = out / FOLDER
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
