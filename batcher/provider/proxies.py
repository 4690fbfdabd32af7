"""Which proxy the environment names for a URL: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`. Sends nothing."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from batcher.errors import WrongUse

_HOST: Final = re.compile(r"[\w.:-]+")
_SPOKEN: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Proxies:
    """What the environment says of proxies: by scheme, `no` for hosts that need none."""

    said: dict[str, str] = field(default_factory=dict)

    def of(self, url: str) -> str | None:
        """Return the URL of the proxy for this URL, None where it is reached directly. Raises WrongUse."""
        parts = urlsplit(url)
        proxy = self.said.get(parts.scheme) or self.said.get("all")
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not proxy or proxy_bypass_environment(f"{host}:{port}", self.said) or self._is_in_a_free_network(host):
            return None
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if problem := _why_no_proxy(proxy):
            raise WrongUse(
                f"the environment names the proxy {proxy.rpartition('@')[2]}: {problem}",
                "name one in HTTPS_PROXY, or list the hosts that need none in NO_PROXY",
            )
        return proxy

    def _is_in_a_free_network(self, host: str) -> bool:
        """Return whether `NO_PROXY` lists a network (10.0.0.0/8) that has this address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        for one in self.said.get("no", "").split(","):
            try:
                if address in ipaddress.ip_network(one.strip(), strict=False):
                    return True
            except ValueError:
                continue
        return False


def _why_no_proxy(proxy: str) -> str:
    """Return why a text cannot be the URL of a proxy, nothing where it can."""
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError as error:
        return str(error).lower()
    if parts.scheme not in _SPOKEN:
        return "only http and https proxies are spoken"
    if not parts.hostname or not _HOST.fullmatch(parts.hostname):
        return "it has no host, or none that can be looked up"
    return "its port is 0" if port == 0 else ""


def of_environment() -> Proxies:
    """Return what the environment says of proxies."""
    return Proxies(getproxies_environment())
