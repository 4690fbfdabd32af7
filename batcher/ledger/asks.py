"""What another process asks of a run at work: a small file each, so that the ledger keeps its one writer."""

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

FOLDER: Final = ".asks"
_NAME: Final = re.compile(r"\d{6,}-[0-9a-f]{16}")


def leave(out: Path, ask: Mapping[str, object]) -> Path:
    """Leave a request for the run that is at work on this directory; its file is there until it was carried out."""
    folder = out / FOLDER
    if folder.is_symlink():
        folder.unlink()
    for last in (False, True):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            name = f"{len(list(folder.iterdir())):06d}-{secrets.token_hex(8)}"  # a name is never used again
            draft, final = folder / f"{name}.draft", folder / f"{name}.json"
            draft.write_text(json.dumps(ask), "utf-8")
            draft.replace(final)
        except FileNotFoundError:  # a run that has just ended took the folder away
            if last:
                raise
        else:
            return final
    raise AssertionError


def waiting(out: Path) -> list[Path]:
    """Give the requests that were left, oldest first."""
    return sorted(_ours(out, ".json"))


def _ours(out: Path, *endings: str) -> list[Path]:
    """Give the files of requests; none where the folder is a link to somewhere else."""
    folder = out / FOLDER
    if folder.is_symlink():
        return []
    try:
        return [file for file in folder.iterdir() if _NAME.fullmatch(file.stem) and file.suffix in endings]
    except OSError:
        return []


def answer(file: Path, said: Mapping[str, object]) -> None:
    """Say what came of a request, then take the request away: whoever left it waits for that.

    Where there is no room for it the request itself is named an answer, so that nobody carries it out once more.
    """
    draft, final = file.with_suffix(".draft"), file.with_suffix(".answer")
    try:
        draft.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
        draft.replace(final)
    except OSError:
        file.replace(final)
        raise
    file.unlink(missing_ok=True)


def heard(file: Path) -> dict[str, Any] | None:
    """Read what came of a request that is no longer there, and take the answer away; None where there is none."""
    answered = file.with_suffix(".answer")
    try:
        said = json.loads(answered.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    answered.unlink(missing_ok=True)
    tidy(file.parent.parent)
    return dict(said)


def tidy(out: Path) -> None:
    """Remove the folder where nothing is left in it."""
    with suppress(OSError):
        (out / FOLDER).rmdir()


def forget(out: Path) -> None:
    """Remove what was left for a run whose process is gone."""
    for file in _ours(out, ".json", ".answer", ".draft"):
        with suppress(OSError):
            file.unlink()
    tidy(out)
