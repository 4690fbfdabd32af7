"""What a user asks of a run, by command line or program: values. Reads no arguments, prints nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batcher.manifest.expand import Options
from batcher.settings import Policy
from batcher.show.words import span

if TYPE_CHECKING:
    from batcher.manifest.document import Document
    from batcher.manifest.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs are worked on."""

    limit: int | None = None
    sample: int | None = None
    where: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return {"limit": self.limit, "sample": self.sample, "where": self.where}


@dataclass(frozen=True, slots=True)
class Overrides:
    """Limits that win over the manifest's; None: not given. Times in seconds."""

    concurrency: int | None = None
    max_cost_usd: float | None = None
    max_time: float | None = None
    patience: float | None = None
    until: str | None = None
    """A time of day on this machine, as `03:00`."""
    by_environment: frozenset[str] = frozenset()
    """Names of those that the environment gives."""

    def over(self, policy: Policy) -> Policy:
        """Return a policy with these in the place of its own."""
        limits = {
            "concurrency": self.concurrency,
            "max_cost_usd": self.max_cost_usd,
            "max_time": self.max_time,
            "until": self.until,
        }
        retry = policy.retry if self.patience is None else replace(policy.retry, patience=self.patience)
        given: dict[str, Any] = {key: value for key, value in limits.items() if value is not None}
        return replace(policy, limits=replace(policy.limits, **given), retry=retry)

    def kept(self, policy: Policy) -> str:
        """Return the limits of an earlier start that none of these changes, as options; nothing for none."""
        limits = policy.limits
        kept = []
        if self.max_cost_usd is None and limits.max_cost_usd is not None:
            kept.append(f"--max-cost {limits.max_cost_usd:g}")
        if self.max_time is None and limits.max_time is not None:
            kept.append(f"--max-time {span(limits.max_time)}")
        if self.until is None and limits.until is not None:
            kept.append(f"--until {limits.until}")
        if self.patience is None and policy.retry.patience != type(policy.retry)().patience:
            kept.append(f"--patience {span(policy.retry.patience)}")
        return ", ".join(kept)

    def sources(self, document: "Document", policy: Policy) -> dict[str, Mapping[str, object]]:
        """Return, by name of a setting, what it is and where it comes from."""
        found: dict[str, Mapping[str, object]] = {}
        for group in ("limits", "retry"):
            said, plain = getattr(document, group), type(getattr(document, group))()
            for one in fields(said):
                value = getattr(getattr(policy, group), one.name)
                manifest = getattr(said, one.name) != getattr(plain, one.name)
                origin = "manifest" if manifest else "default"
                if getattr(self, one.name, None) is not None:
                    origin = "environment" if one.name in self.by_environment else "option"
                found[one.name] = {"value": value, "from": origin}
        return found


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A manifest, and what is asked of it."""

    manifest: "Manifest"
    out: Path | None = None
    model: str | None = None
    provider: str | None = None
    options: Options = field(default_factory=Options)
    overrides: Overrides = field(default_factory=Overrides)
    selection: Selection = field(default_factory=Selection)
    sandbox: bool = False
    reuse: Sequence[Path] = ()
    replace_done: bool = False
    words: Callable[[bool], Sequence[str]] | None = field(default=None, compare=False)
    """Returns the options as words of a command, without the selection if so asked; None for a program's."""
