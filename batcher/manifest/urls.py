"""Whether the server can fetch what a manifest names by a URL: https, a host of the public internet."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from batcher.provider.addresses import barred

_OWN: Final = "localhost|local|lan|home|internal|intranet|corp|localdomain|arpa"
"""Domains that only a network of somebody's own knows: RFC 6761, 6762, 8375, ICANN's reserved ones, and the usual."""
_PLAIN: Final = re.compile(
    rf"https://(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+(?!(?:{_OWN})(?:[:/?#]|\Z))[a-z]{{2,24}}(?::\d{{1,5}})?(?:[/?#]|\Z)",
    re.IGNORECASE,
)
"""What most URLs are: https, and a name with a domain."""
_LOCAL: Final = re.compile(rf"(?:^|\.)(?:{_OWN})$", re.IGNORECASE)
_SEVERAL: Final = re.compile(r"[,;\s]\s*https?://", re.IGNORECASE)
_LOOPBACK: Final = re.compile(r"(?:^|\.)localhost$", re.IGNORECASE)


def why_not_fetchable(url: str, *, loopback: bool) -> str:
    """Return why a server on the internet cannot fetch this URL, nothing where it can.

    `loopback`: the server runs on this machine, as the sandbox does, so that its own addresses are within its reach.
    """
    if _SEVERAL.search(url):
        return "is several URLs in one text: separate them by `|`, or give each a row of its own"
    if _PLAIN.match(url):
        return ""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError as error:
        return f"is not a URL: {error}"
    if not host:
        return "has no host"
    if loopback and is_loopback(host):
        return ""
    if not _is_public(host):
        return f"is at {host}, which no server on the internet reaches: give a public https URL, or the file itself"
    if parts.scheme.lower() != "https":
        return "is not https, which the API asks for: give an https URL, or the file itself"
    return ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return bool(_LOOPBACK.search(host.rstrip(".")))


def is_local_server(base: str) -> bool:
    """Return whether the API at this base URL runs on this machine."""
    try:
        return is_loopback(urlsplit(base).hostname or "")
    except ValueError:
        return False


def _is_public(host: str) -> bool:
    name = host.rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not _LOCAL.search(name) and not name.replace(".", "").isdigit()
    return not barred(name)
