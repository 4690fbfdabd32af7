"""Settings: limits and retry rules as groups, and where the API and its token are found. Never prints a token."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, WithJsonSchema

from batcher.errors import WrongUse

API_BASE: Final = "https://model-api.runcomfy.net"
BALANCE_BASE: Final = "https://api.runcomfy.net"
TOKEN_NAMES: Final = ("RUNCOMFY_TOKEN", "RUNCOMFY_API_TOKEN", "RUNCOMFY_API_KEY")
SANDBOX: Final = "sandbox"

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: object) -> object:
    """Read a duration: `90`, `90s`, `30m`, `1h30m`, `2d`."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)([smhd])", text))
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    raise ValueError("is no duration: write 90s, 30m or 1h30m")


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^(\d+(\.\d+)?[smhd])+$"}]}
    ),
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
    """USD that are never passed: what was billed, is reserved or at risk counts. Where it is short, every row gets its
    first job before any its second."""
    confirm_above_usd: Annotated[float, Field(ge=0)] = 20.0
    """USD above which `run` asks first, on a terminal."""
    max_time: Seconds | None = None
    """Time after which no more jobs are submitted: `90s`, `30m`, `8h`."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What is tried again, and when a run gives up."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    attempts: Annotated[int, Field(ge=1, le=20)] = 1
    """Submissions that a job may take when its generation fails; each may be billed."""
    uncertain: Literal["hold", "resubmit"] = "hold"
    """What becomes of a submission whose answer was lost: `hold` it for you, or `resubmit` it, which may bill twice."""
    max_uncertain: Annotated[int, Field(ge=0)] = 20
    """Uncertain submissions of one start after which the run stops."""
    max_failures: Annotated[int, Field(ge=1)] = 50
    """Failures in a row after which the run stops."""
    job_timeout: Seconds = 3600.0
    """How long a job may be at work at the server: `1h`."""
    patience: Seconds = 21_600.0
    """How long a server that is silent or full is waited for: `6h`."""


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


def api_base(environ: Mapping[str, str]) -> str:
    """Give the API's base URL without slash and `/v1`, which the vendor's tools write too. Raises WrongUse."""
    base = environ.get("RUNCOMFY_MODEL_API_BASE", "").strip() or API_BASE
    if not base.startswith(("http://", "https://")):
        raise WrongUse(f"RUNCOMFY_MODEL_API_BASE is {base!r}: write https://{base.rpartition('://')[2]}")
    return base.rstrip("/").removesuffix("/v1").rstrip("/")


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token, where it was found, and when it ends (RFC 3339 text or a stamp) where that is written beside it."""

    secret: Secret
    source: str = ""
    expires_at: object = None


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
    base = api_base(os.environ)
    return Endpoint(
        base=base,
        token=find_token(os.environ, beside),
        provider=base,
        renew=lambda: find_token(os.environ, beside),
    )


def balance_base(environ: Mapping[str, str]) -> str:
    """Give the base URL of the account's balance."""
    return (environ.get("RUNCOMFY_SERVERLESS_API_BASE", "").strip() or BALANCE_BASE).rstrip("/")
