"""What another process asks of a run at work: a small file each, so that the ledger keeps its one writer."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

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


def tidy(out: Path) -> None:
    """Remove the folder where nothing is left in it."""
    with suppress(OSError):
        (out / FOLDER).rmdir()


def forget(out: Path) -> None:
    """Remove what was left for a run whose process is gone."""
    for file in waiting(out):
        file.unlink(missing_ok=True)
    tidy(out)
