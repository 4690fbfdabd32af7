"""Which addresses a file may be fetched from: a server's answer must not lead into the user's own network."""

import ipaddress
from collections.abc import Collection
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MADE_UP: Final = ipaddress.IPv4Network("198.18.0.0/15")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def barred(text: str, own: Collection[str] = ()) -> bool:
    """Return whether an address is private, loopback, link-local or otherwise not of the public internet.

    `own`: the API host's addresses, which are free. Addresses within addresses count as what they carry: IPv4-mapped,
    6to4, Teredo, NAT64.
    """
    if text in own:
        return False
    if _stands_in(text) and any(map(_stands_in, own)):
        return False
    try:
        address: _Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return True
    return not all(one.is_global and not one.is_multicast for one in _carried(address))


def _stands_in(text: str) -> bool:
    """Return whether a proxy on this machine may have made an address up, in the place of one of the public internet.

    Such proxies answer every name from a block for measurements, in which nobody has a host.
    """
    try:
        return ipaddress.ip_address(text) in _MADE_UP
    except ValueError:
        return False


def _carried(address: _Address) -> list[_Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    if address in _NAT64_LOCAL:
        return [ipaddress.IPv4Address("127.0.0.1")]  # of someone's own network, whatever it carries
    return [address]
