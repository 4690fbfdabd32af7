"""Which file names of a ledger or a sidecar stay inside their run directory: run directories are passed on. Pure."""

from pathlib import PurePosixPath
from typing import Final

_ROOTS: Final = frozenset({"files", "replaced"})
"""Folders of a run directory that results lie in."""


def is_inside(file: str) -> bool:
    """Return whether a name is one of a result: relative, below `files` or `replaced`, without a step upwards."""
    parts = PurePosixPath(file).parts
    return len(parts) > 1 and parts[0] in _ROOTS and ".." not in parts and "\0" not in file
