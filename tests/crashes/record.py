"""Reads an strace record: what a process wrote, flushed, renamed and sent, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TRACED: Final = (
    "openat,open,creat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,ftruncate,fallocate,sendto,sendmsg,close"
)
_CALL: Final = re.compile(r"(\d+) +([a-z0-9_]+)\((.*)$")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. ([a-z0-9_]+) resumed>(.*)$")
_TEXT: Final = r'"((?:\\x[0-9a-f]{2})*)"'
_FD: Final = r"(?:-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2}|[^>\\])*)>"


@dataclass(frozen=True)
class Op:
    """One change of the file system, or a message that left. Paths are absolute."""

    kind: str
    """write, truncate, make, folder, rename, remove, flush, sent"""
    path: str
    data: bytes = b""
    offset: int = -1
    """-1: at the end."""
    to: str = ""


def read(trace: Path) -> list[Op]:
    """Give the operations in the order in which they ended; a message from when it may have begun to leave."""
    found: list[Op] = []
    begun: dict[str, str] = {}
    offsets: dict[str, int] = {}
    for line in trace.read_text("latin-1").splitlines():
        if resumed := _RESUMED.match(line):
            text = begun.pop(resumed[1], "") + resumed[3]
            found += _ops(resumed[2], text, offsets, sends=False)
        elif called := _CALL.match(line):
            if called[3].endswith("<unfinished ...>"):
                begun[called[1]] = called[3].removesuffix("<unfinished ...>").rstrip()
                found += [op for op in _ops(called[2], called[3], offsets, sends=True) if op.kind == "sent"]
            else:
                found += _ops(called[2], called[3], offsets, sends=True)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda byte: chr(int(byte[1], 16)), text)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _ops(name: str, text: str, offsets: dict[str, int], *, sends: bool) -> Iterator[Op]:
    """Read one call's arguments and result."""
    fds = [_plain(one) for one in re.findall(_FD, text)]
    texts = re.findall(_TEXT, re.sub(_FD, "<>", text))
    result = re.search(r"\) += (-?\d+)", text)
    failed = result is not None and int(result[1]) < 0
    if name in {"sendto", "sendmsg", "write", "writev"} and fds and not fds[0].startswith("/"):
        if sends and "socket" in fds[0]:
            yield Op("sent", "", b"".join(_bytes(one) for one in texts))
        return
    if failed or result is None:
        return
    match name:
        case "openat" | "open" | "creat":
            path = _join(fds[0] if fds and "AT_FDCWD<" in text[:20] else (fds[0] if fds else ""), _plain(texts[0]))
            if "O_CREAT" in text:
                yield Op("make", path)
            if "O_TRUNC" in text:
                yield Op("truncate", path, offset=0)
            offsets.setdefault(path, 0)
        case "write" | "writev":
            yield Op("write", fds[0], b"".join(_bytes(one) for one in texts))
        case "pwrite64":
            numbers = re.search(r", (\d+), (\d+)\) +=", text)
            assert numbers, text[-80:]
            yield Op("write", fds[0], _bytes(texts[0]), int(numbers[2]))
        case "ftruncate":
            size = re.search(r", (\d+)\) +=", text)
            yield Op("truncate", fds[0], offset=int(size[1]) if size else 0)
        case "fsync" | "fdatasync":
            yield Op("flush", fds[0])
        case "rename" | "renameat" | "renameat2":
            places = [*fds, "", ""][:2] if name != "rename" else ["", ""]
            yield Op("rename", _join(places[0], _plain(texts[0])), to=_join(places[1], _plain(texts[1])))
        case "unlink" | "rmdir" | "unlinkat":
            yield Op("remove", _join(fds[0] if name == "unlinkat" and fds else "", _plain(texts[0])))
        case "mkdir" | "mkdirat":
            yield Op("folder", _join(fds[0] if name == "mkdirat" and fds else "", _plain(texts[0])))


def _join(folder: str, path: str) -> str:
    return path if path.startswith("/") else f"{folder}/{path}"
