"""Reads the named statements of the `.sql` files beside it."""

import re
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


@cache
def statements(file: str) -> dict[str, str]:
    """Return a file's statements by name: each stands below its own `-- name:` line."""
    parts = re.split(r"^-- name: (\w+)$", (HERE / file).read_text("utf-8"), flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def script(file: str) -> str:
    """Return a file's statements as they stand."""
    return (HERE / file).read_text("utf-8")
