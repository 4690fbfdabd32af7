"""Where a provider's API is, and the token for it, by the environment and the vendor's own files. Prints no token."""

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dotenv import dotenv_values

from batcher.errors import WrongUse
from batcher.provider import FIRST, PROVIDERS
from batcher.provider.provider import ApiBase, Provider
from batcher.settings import SANDBOX, Destination, Endpoint, Secret

_CONTROLS: Final = dict.fromkeys(map(chr, (*range(32), *range(127, 160))), "") | {
    "\n": "a line break",
    "\r": "a carriage return",
    "\t": "a tab",
    "\0": "a NUL",
}
_LONGEST_HOST: Final = 253
"""Characters of a host name (RFC 1035, 2.3.4, without the final dot)."""
_LABEL: Final = re.compile(r"[\w-]{1,63}")
"""Characters, by RFC 1035."""


def base_url(environ: Mapping[str, str], base: ApiBase) -> str:
    """Return a base URL without a slash at its end. Raises WrongUse if no server can be at it."""
    text = environ.get(base.variable, "").strip() or base.url
    if problem := _why_no_base(text):
        raise WrongUse(f"{base.variable} is {text!r}: {problem}; write a URL such as {base.url}")
    text = text.rstrip("/")
    return text.removesuffix(base.often_ends).rstrip("/") if base.often_ends else text


def _why_no_base(base: str) -> str:
    """Return why a text cannot be the base URL of an API, nothing where it can."""
    if not base.isprintable() or " " in base:
        return "it has a space or a control character"
    if "?" in base or "#" in base:
        return "it has a query or a fragment"
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError as error:
        return str(error).lower()
    if parts.scheme not in {"http", "https"}:
        return "it does not begin with https://"
    if "@" in parts.netloc:
        return "it names a user, and the token is sent in a header"
    if not parts.hostname or not _is_host(parts.hostname):
        return "it has no host, or none that can be looked up"
    return "its port is 0" if port == 0 else ""


def _is_host(name: str) -> bool:
    """Return whether a name can be one of a host: labels of up to 63 characters, of 253 in all; or an IPv6 address."""
    labels = name.removesuffix(".").split(".")
    try:
        if ":" in name:
            return bool(ipaddress.IPv6Address(name)) and "%" not in name
        if labels[-1].isascii() and labels[-1].isdigit():  # that makes it an address
            return bool(ipaddress.IPv4Address(name))
    except ValueError:
        return False
    return len(name) <= _LONGEST_HOST and all(_LABEL.fullmatch(label) for label in labels)


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token, where it was found, and when it ends (RFC 3339 text or a stamp) where that is written beside it."""

    secret: Secret
    source: str = ""
    expires_at: object = None

    @property
    def problem(self) -> str:
        """Why it can be no token, nothing where it can: a header carries no control characters."""
        for char in self.secret.reveal():
            if char in _CONTROLS:
                name = _CONTROLS[char] or "a control character"
                return f"the token of {self.source} has {name} (U+{ord(char):04X}) in it"
        return ""


def look_for_token(api: Provider, environ: Mapping[str, str], beside: Path | None = None) -> FoundToken:
    """Find the token: environment, `.env` beside the manifest, the vendor's own file; else return an empty one."""
    dotenv = beside / ".env" if beside else None
    sources: list[tuple[str, Mapping[str, str | None]]] = [("the environment", environ)]
    if dotenv and dotenv.is_file():
        sources.append((str(dotenv), dotenv_values(dotenv, interpolate=False, encoding="latin-1")))
    for place, source in sources:
        for name in api.traits.token_names:
            if text := (source.get(name) or "").strip():
                return FoundToken(Secret(text), f"{name} in {place}")
        parts = [(source.get(name) or "").strip() for name in api.traits.token_pair]
        if parts and all(parts):
            return FoundToken(Secret(":".join(parts)), f"{' and '.join(api.traits.token_pair)} in {place}")
    for folder in _config_dirs(api, environ):
        said = _token_file(folder / "token.json")
        if text := str(said.get("token") or said.get("access_token") or "").strip():
            return FoundToken(Secret(text), str(folder / "token.json"), said.get("expires_at"))
    return FoundToken(Secret(""))


def find_token(api: Provider, environ: Mapping[str, str], beside: Path | None = None) -> Secret:
    """Return the token, empty if there is none."""
    return look_for_token(api, environ, beside).secret


def _config_dirs(api: Provider, environ: Mapping[str, str]) -> list[Path]:
    """Return the folders in which the vendor's own tools keep the token."""
    folder = api.traits.config_folder
    if not folder:
        return []
    own, xdg = environ.get(api.traits.config_variable), environ.get("XDG_CONFIG_HOME")
    usual = Path(xdg) if xdg else Path(environ.get("HOME") or Path.home()) / ".config"
    return [*([Path(own)] if own else []), usual / folder]


def _token_file(file: Path) -> Mapping[str, object]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(found, str):
        return {"token": found}
    return found if isinstance(found, dict) else {}


def destination(vendor: str = FIRST, *, sandbox: bool = False) -> Destination:
    """Return whose results a run is to hold: the sandbox's, or those of a provider as the environment names its API."""
    provider = SANDBOX if sandbox else base_url(os.environ, PROVIDERS[vendor].traits.api)
    return Destination(provider, vendor)


def remote(beside: Path | None = None, vendor: str = FIRST) -> Endpoint:
    """Return a provider's API as the environment names it; its token may be empty."""
    api = PROVIDERS[vendor]
    base, found = base_url(os.environ, api.traits.api), look_for_token(api, os.environ, beside)
    return Endpoint(
        base=base,
        token=found.secret,
        provider=base,
        renew=lambda: find_token(api, os.environ, beside),
        problem=found.problem,
        vendor=api.name,
        account=base_url(os.environ, api.traits.account),
        token_name=api.traits.token_names[0],
        token_hint=api.traits.token_hint,
    )
