"""Commands for a run at work, and its answers: a small file each, so that the ledger keeps its one writer."""

import json
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from batcher.control.commands import Command, Result, read_command, write_command

FOLDER: Final = ".asks"
"""Below the run directory."""
_NAME: Final = re.compile(r"\d{6,}-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command was not carried out."""

    error: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """What came of a command. Neither set: it was carried out, and there was no room to say what came of it."""

    result: object = None
    failure: Failure | None = None


_ANSWER: Final = TypeAdapter(CommandAnswer)


def post(out: Path, command: Command) -> Path:
    """Leave a command for the run that holds this directory; its file is there until it was carried out."""
    folder = out / FOLDER
    if folder.is_symlink():
        folder.unlink()
    for last in (False, True):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            name = f"{len(list(folder.iterdir())):06d}-{secrets.token_hex(8)}"  # a name is never used again
            draft, final = folder / f"{name}.draft", folder / f"{name}.json"
            draft.write_bytes(write_command(command))
            draft.replace(final)
        except FileNotFoundError:  # a run that has just ended took the folder away
            if last:
                raise
        else:
            return final
    raise AssertionError


def unanswered(out: Path) -> list[Path]:
    """Return the files of commands that are not carried out yet, oldest first."""
    return sorted(_files(out, ".json"))


def read(file: Path) -> Command:
    """Return the command in a file. Raises WrongUse, OSError."""
    return read_command(file.read_bytes())


def _files(out: Path, *endings: str) -> list[Path]:
    """Return the files of commands and answers; none where the folder is a link to somewhere else."""
    folder = out / FOLDER
    if folder.is_symlink():
        return []
    try:
        return [file for file in folder.iterdir() if _NAME.fullmatch(file.stem) and file.suffix in endings]
    except OSError:
        return []


def answer(file: Path, came: Result | Failure) -> None:
    """Write what came of a command, then remove the command: whoever posted it waits for that.

    Where there is no room for the answer, the command's file itself is renamed to be one, so that nobody carries it out
    once more.
    """
    draft, final = file.with_suffix(".draft"), file.with_suffix(".answer")
    content = CommandAnswer(failure=came) if isinstance(came, Failure) else CommandAnswer(result=came)
    try:
        draft.write_bytes(_ANSWER.dump_json(content))
        draft.replace(final)
    except OSError:
        file.replace(final)
        raise
    file.unlink(missing_ok=True)


def take_answer(file: Path) -> CommandAnswer | None:
    """Read and remove the answer to a command whose file is gone; None where there is none."""
    answered = file.with_suffix(".answer")
    try:
        found: dict[str, Any] = json.loads(answered.read_bytes())
        taken = CommandAnswer() if "do" in found else _ANSWER.validate_python(found)
    except (OSError, ValueError):
        return None
    answered.unlink(missing_ok=True)
    remove_empty(file.parent.parent)
    return taken


def remove_empty(out: Path) -> None:
    """Remove the folder where nothing is left in it."""
    with suppress(OSError):
        (out / FOLDER).rmdir()


def discard_all(out: Path) -> None:
    """Remove what was left for a run whose process is gone."""
    for file in _files(out, ".json", ".answer", ".draft"):
        with suppress(OSError):
            file.unlink()
    remove_empty(out)
