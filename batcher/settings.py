"""Settings: limits and retry rules as groups, and where the API and its token are found. Never prints a token."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema

from batcher.errors import TokenMissing

SANDBOX: Final = "sandbox"

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
    raise ValueError("is not a time of day: write 03:00 or 21:30, this machine's time")


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

    def to_json(self) -> dict[str, object]:
        """Return it as the ledger keeps it."""
        return asdict(self)

    @classmethod
    def of_json(cls, facts: object) -> "Policy":
        """Return the policy that the ledger keeps; the one that is the default where it keeps none."""
        return TypeAdapter(cls).validate_python(facts) if facts else cls()


class Secret:
    """A token: its text is taken out on purpose, never by printing."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one header that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __bool__(self) -> bool:
        return bool(self._text)


@dataclass(frozen=True, slots=True)
class Destination:
    """Whose results a run is to hold."""

    provider: str
    """`sandbox`, or the API's base URL."""
    vendor: str
    """The name of the provider whose protocol is spoken there."""

    @property
    def is_sandbox(self) -> bool:
        """Whether it is a rehearsal."""
        return self.provider == SANDBOX


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is. `base` has no trailing slash and no `/v1`."""

    base: str
    token: Secret
    provider: str
    """Whose results a ledger holds: `sandbox`, or the API's base URL."""
    vendor: str
    """The name of the provider whose protocol is spoken there."""
    renew: Callable[[], Secret] | None = None
    """Reads the token once more."""
    problem: str = ""
    """Why the token cannot be sent, nothing where it can."""
    account: str = ""
    """The base URL of what belongs to the account, where that is another."""
    token_name: str = ""
    """The variable of the environment that a token is put into."""
    token_hint: str = ""
    """Where a user finds the token."""

    def missing(self, why: str = "") -> TokenMissing:
        """Return the error of a token that is not there; `why`: what it was wanted for."""
        return TokenMissing(
            why, f"{self.token_hint}, or rehearse with --sandbox" if self.token_hint else "", self.token_name
        )

    def check_token(self) -> None:
        """Raise TokenMissing if there is no token, or none that can be sent."""
        if not self.token:
            raise self.missing()
        if self.problem:
            raise TokenMissing(self.problem, "copy it again, without what is not part of it", self.token_name)
