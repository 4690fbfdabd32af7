"""What kind of folder a ledger lies in: some cannot share memory between processes, some are copied while in use."""

import os
from pathlib import Path
from typing import Final

_NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "ncpfs",
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.s3fs",
        "ceph",
        "lustre",
    }
)
_SYNCED: Final = (
    "dropbox",
    "onedrive",
    "google drive",
    "googledrive",
    "icloud",
    "mobile documents",
    "nextcloud",
    "pcloud",
)


def network(folder: Path, mounts: str | None = None) -> str | None:
    """Return the type of a network file system that a folder lies on (NFS, SMB, ...), None for a local one.

    `mounts`: the text of `/proc/self/mounts`; read where it is not given, and no answer where there is none.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text("utf-8", "replace")
        except OSError:
            return None
    place = os.path.realpath(folder)
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:  # noqa: PLR2004 - device, where, type
            continue
        where = parts[1].replace("\\040", " ")
        inside = place == where or place.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):
            best, kind = where, parts[2]
    return kind if kind in _NETWORK else None


def synced(folder: Path) -> str | None:
    """Return the part of a path that names a folder which a program keeps copying elsewhere, or None."""
    for part in Path(os.path.realpath(folder)).parts:
        if part.lower().startswith(_SYNCED):
            return part
    return None


def warnings(folder: Path) -> list[str]:
    """Return warnings about the folder that matter before a night is spent in it."""
    found = []
    if kind := network(folder):
        found.append(
            f"{folder} lies on a network file system ({kind}): the ledger keeps a rollback journal there, which is "
            "slower; never run it from two machines at once, for locks may not reach the other"
        )
    if name := synced(folder):
        found.append(
            f"{folder} lies in {name!r}, which another program copies while the run writes it: a copy of the ledger "
            "taken half-way is not to be gone on with; a folder that is not synced is safer"
        )
    return found
