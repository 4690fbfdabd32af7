"""Settings: limits and retry rules as groups, and where the API and its token are found. Never prints a token."""

import ipaddress
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, WithJsonSchema

from batcher.errors import TokenMissing, WrongUse

API_BASE: Final = "https://model-api.runcomfy.net"
BALANCE_BASE: Final = "https://api.runcomfy.net"
TOKEN_NAMES: Final = ("RUNCOMFY_TOKEN", "RUNCOMFY_API_TOKEN", "RUNCOMFY_API_KEY")
SANDBOX: Final = "sandbox"

_CONTROLS: Final = dict.fromkeys(map(chr, (*range(32), *range(127, 160))), "") | {
    "\n": "a line break",
    "\r": "a carriage return",
    "\t": "a tab",
    "\0": "a NUL",
}
_LONGEST_HOST: Final = 253
_LABEL: Final = re.compile(r"[\w-]{1,63}")
"""Characters, by RFC 1035."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: object) -> object:
    """Read a duration: `90s`, `30m`, `1h30m`, `2d`. A text needs its units; a number is seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)([smhd])", text))
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"has no unit: write {text}h, {text}m or {text}s")
    raise ValueError("is not a duration: write 90s, 30m or 1h30m")


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^(\d+(\.\d+)?[smhd])+$"}]}
    ),
]


def time_of_day(value: object) -> object:
    """Read a time of day, `03:00`, as it is written with two digits each."""
    if not isinstance(value, str):
        return value
    if found := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value.strip()):
        return f"{int(found[1]):02}:{found[2]}"
    raise ValueError("is no time of day: write 03:00 or 21:30, this machine's time")


TimeOfDay = Annotated[
    str, BeforeValidator(time_of_day), WithJsonSchema({"type": "string", "pattern": r"^([01]?\d|2[0-3]):[0-5]\d$"})
]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, how fast, for how much money."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Jobs at the server at once."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Requests a second, submissions and polls together."""
    max_cost_usd: Annotated[float, Field(ge=0)] | None = None
    """Spending cap in USD: billed, reserved and at risk count. Until a bill of its price class has come, a job is
    reserved at ten times its estimate, or goes alone; so bills of up to ten times their estimate pass the cap by at
    most one job. Where money is short, every row gets its first job before any its second."""
    confirm_above_usd: Annotated[float, Field(ge=0)] = 20.0
    """USD above which `run` asks first; where nobody can be asked it needs `--yes` or a cap."""
    max_time: Seconds | None = None
    """Time after which no more jobs are submitted: `90s`, `30m`, `8h`."""
    until: TimeOfDay | None = None
    """Time of day on this machine after which no more jobs are submitted: `"03:00"`; one that is past is tomorrow's."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What is tried again, and when a run gives up."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    attempts: Annotated[int, Field(ge=1, le=20)] = 1
    """Submissions that a job may take when its generation fails; each may be billed."""
    uncertain: Literal["hold", "resubmit"] = "hold"
    """What becomes of a submission whose answer was lost: `hold` it for you, or `resubmit` it, which may bill twice."""
    max_uncertain: Annotated[int, Field(ge=0)] = 20
    """Uncertain submissions after which the run stops, counted since you last decided about them."""
    max_failures: Annotated[int, Field(ge=1)] = 50
    """Failures in a row after which the run stops."""
    job_timeout: Seconds = 3600.0
    """How long a job may be at work at the server: `1h`."""
    patience: Seconds = 21_600.0
    """How long a server that is silent or full is waited for: `6h`."""
    fetch_timeout: Seconds = 1800.0
    """How long a file that cannot be fetched is tried, while the API answers, before its job fails: `30m`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run obeys; the ledger keeps it, so that `resume` needs no manifest."""

    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)


class Secret:
    """A token: its text is taken out on purpose, never by printing."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text, for the one header that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __bool__(self) -> bool:
        return bool(self._text)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is. `base` has no trailing slash and no `/v1`."""

    base: str
    token: Secret
    provider: str
    """Whose results a ledger holds: `sandbox`, or the API's base URL."""
    renew: Callable[[], Secret] | None = None
    """Reads the token once more."""
    problem: str = ""
    """Why the token cannot be sent, nothing where it can."""
    vendor: str = "runcomfy"
    """The name of the provider whose protocol is spoken there."""

    def check_token(self) -> None:
        """Raise TokenMissing if there is no token, or none that can be sent."""
        if not self.token:
            raise TokenMissing
        if self.problem:
            raise TokenMissing(self.problem, "copy it anew, without what is not part of it")


def api_base(environ: Mapping[str, str]) -> str:
    """Return the API's base URL without slash and `/v1`, which the vendor's tools write too. Raises WrongUse."""
    base = _base_in(environ, "RUNCOMFY_MODEL_API_BASE", API_BASE)
    return base.removesuffix("/v1").rstrip("/")


def balance_base(environ: Mapping[str, str]) -> str:
    """Return the base URL of the account's balance. Raises WrongUse."""
    return _base_in(environ, "RUNCOMFY_SERVERLESS_API_BASE", BALANCE_BASE)


def _base_in(environ: Mapping[str, str], name: str, default: str) -> str:
    """Return a base URL without a slash at its end. Raises WrongUse where no server can be at it."""
    base = environ.get(name, "").strip() or default
    if problem := _why_no_base(base):
        raise WrongUse(f"{name} is {base!r}: {problem}; write a URL such as {default}")
    return base.rstrip("/")


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


def look_for_token(environ: Mapping[str, str], beside: Path | None = None) -> FoundToken:
    """Find the token: environment, `.env` beside the manifest, the vendor's `token.json`; else give an empty one."""
    dotenv = beside / ".env" if beside else None
    sources: list[tuple[str, Mapping[str, str | None]]] = [("the environment", environ)]
    if dotenv and dotenv.is_file():
        sources.append((str(dotenv), dotenv_values(dotenv, interpolate=False, encoding="latin-1")))
    for place, source in sources:
        for name in TOKEN_NAMES:
            if text := (source.get(name) or "").strip():
                return FoundToken(Secret(text), f"{name} in {place}")
    for folder in _config_dirs(environ):
        said = _token_file(folder / "token.json")
        if text := str(said.get("token") or said.get("access_token") or "").strip():
            return FoundToken(Secret(text), str(folder / "token.json"), said.get("expires_at"))
    return FoundToken(Secret(""))


def find_token(environ: Mapping[str, str], beside: Path | None = None) -> Secret:
    """Give the token, empty where there is none."""
    return look_for_token(environ, beside).secret


def _config_dirs(environ: Mapping[str, str]) -> list[Path]:
    own, xdg = environ.get("RUNCOMFY_CONFIG_DIR"), environ.get("XDG_CONFIG_HOME")
    usual = Path(xdg) if xdg else Path(environ.get("HOME") or Path.home()) / ".config"
    return [*([Path(own)] if own else []), usual / "runcomfy"]


def _token_file(file: Path) -> Mapping[str, object]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(found, str):
        return {"token": found}
    return found if isinstance(found, dict) else {}


def remote(beside: Path | None = None) -> Endpoint:
    """Give the real API as the environment names it; the token may be empty."""
    base, found = api_base(os.environ), look_for_token(os.environ, beside)
    return Endpoint(
        base=base,
        token=found.secret,
        provider=base,
        renew=lambda: find_token(os.environ, beside),
        problem=found.problem,
    )
