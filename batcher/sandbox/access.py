"""Who may talk to the sandbox, and which addresses it fetches from: it runs beside a browser.

A web page can send requests to loopback, and a name that its owner points there can read the answers: so the `Host` of
a request must be loopback, and a page of another origin is refused.
"""

import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

_LOCAL: Final = "localhost"


class PrivateAddress(OSError):
    """The address is of a private network: nothing is fetched from there."""


@web.middleware
async def local_only(request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401 - as aiohttp has it
    """Refuse what a browser sends for a page of elsewhere, and bodies that are no JSON."""
    if not is_loopback(_host_of(f"//{request.headers.get('Host', '')}")):
        raise web.HTTPForbidden(text="the sandbox answers to loopback addresses only")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        raise web.HTTPForbidden(text="the sandbox answers no page of another origin")
    if request.method == "POST" and request.can_read_body and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the sandbox takes JSON (Content-Type: application/json)")
    response: web.StreamResponse = await handler(request)
    return response


def is_loopback(host: str) -> bool:
    """Return whether a host, as a URL names it, is this machine's loopback."""
    if host == _LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make the socket of a connection to an image's host: of the public internet, or of loopback. Raises Barred.

    It is asked once every name, spelling and redirect has become an address.
    """
    family, kind, protocol, _, where = address
    found = ipaddress.ip_address(str(where[0]).partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and not found.is_loopback and _carries_another(found):
        raise PrivateAddress(f"{found} stands for another address")
    if not (found.is_loopback or (found.is_global and not found.is_multicast)):
        raise PrivateAddress(f"{found} is an address of a private network")
    return socket.socket(family, kind, protocol)


def _carries_another(address: ipaddress.IPv6Address) -> bool:
    return bool(address.ipv4_mapped or address.sixtofour or address.teredo) or address in _NAT64


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/32")
