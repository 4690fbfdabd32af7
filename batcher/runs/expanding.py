"""From a manifest and options to an expansion: what `run` and `plan` both begin with."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Final

from batcher.catalog import UNKEPT, Model
from batcher.errors import Fault, ManifestFaulty, WrongUse
from batcher.hosting.inline import ImageFactsCache
from batcher.manifest.expand import Expansion, Options, Reject
from batcher.manifest.faults import did_you_mean
from batcher.manifest.manifest import Manifest
from batcher.manifest.media_inputs import MOST_OUTSIDE
from batcher.manifest.names import safe_name
from batcher.manifest.urls import is_local_server
from batcher.provider import FIRST, PROVIDERS
from batcher.runs.run_request import Selection
from batcher.settings import SANDBOX, Destination, Policy
from batcher.show.words import jobs, rows
from batcher.version import __version__

_NAMED: Final = 5
"""Images outside of the manifest's folder that are named; `plan --json` names all."""


def known_provider(name: str | None) -> str | None:
    """Return the name of a provider that was asked for, None where none was. Raises WrongUse where there is none."""
    if name is None:
        return None
    if (known := name.lower()) not in PROVIDERS:
        raise WrongUse(f"`{name}` is not a provider{did_you_mean(known, [*PROVIDERS])}")
    return known


def vendor(manifest: Manifest, option: str | None) -> str:
    """Return the name of the provider that is asked for, by option or manifest. Raises WrongUse."""
    return known_provider(option) or manifest.document.provider or FIRST


def out_dir(manifest: Manifest, out: Path | None, owner: Destination) -> Path:
    """Return the run directory: as asked for, else by the manifest's name and by who makes its results."""
    if out is not None:
        return out
    ending = f".{owner.vendor}" if owner.vendor != FIRST else ""
    ending += f".{SANDBOX}" if owner.is_sandbox else ""
    return Path("runs") / (safe_name(manifest.name).replace("/", "-") + ending)


def is_another(manifest: Manifest, known: object) -> bool:
    """Return whether a run directory that remembers `known` was made for another manifest than this one."""
    if not known or known == manifest.key:
        return False
    return "-" in (known, manifest.key) or Path(str(known)).resolve() != manifest.path.resolve()


def model_id(manifest: Manifest, option: str | None) -> str:
    """Return the model that is asked for. Raises ManifestFaulty where none is."""
    found = option or manifest.document.model
    if not found and any(fault.field == "model" for fault in manifest.faults.shown):
        raise manifest.faults.error()
    if not found:
        message = "is missing: name a model, as in `model: google/nano-banana/pro/edit`, or use --model"
        raise faulty(manifest, Fault(manifest.file, 1, "model", message))
    return found


def unknown_model(manifest: Manifest, name: str, known: list[str]) -> ManifestFaulty:
    """Make the fault of a model that nobody knows."""
    line = manifest.marked.line("model")
    return faulty(manifest, Fault(manifest.file, line, "model", f"`{name}` is not a model" + did_you_mean(name, known)))


def nothing_selected(manifest: Manifest, selection: Selection) -> ManifestFaulty:
    """Make the fault of a selection that leaves no job."""
    where = f": {selection.where} is true of none" if selection.where else ""
    fault = Fault("--where" if selection.where else manifest.file, 1, "", f"selects no job of the manifest{where}")
    return faulty(manifest, fault)


def faulty(manifest: Manifest, fault: Fault) -> ManifestFaulty:
    """Make the error of a fault that lets nobody look at the rows, with what else is wrong with the settings."""
    faults = manifest.faults.copy()
    faults.add(fault)
    return faults.error()


def policy(manifest: Manifest) -> Policy:
    """Return the settings as the manifest has them."""
    return Policy(manifest.document.limits, manifest.document.retry)


def options_at(owner: Destination, options: Options) -> Options:
    """Return options with what depends on who makes the results: its reach, and how much it takes in one request."""
    return replace(
        options,
        loopback=owner.is_sandbox or is_local_server(owner.provider),
        most_inline=PROVIDERS[owner.vendor].traits.most_inline_bytes,
    )


def expansion(
    manifest: Manifest, model: Model, looks: ImageFactsCache, options: Options, reject: Reject | None, *, capped: bool
) -> Expansion:
    """Begin to expand, once what depends on the model is checked.

    `options`: as `options_at` returns them; `capped`: there is a limit to the cost.
    """
    if capped and not manifest.document.prices and model.prices is None:
        line = manifest.marked.line("limits", "max_cost_usd")
        message = f"the price of {model.id} is not known: say it under `prices:`, or drop the limit"
        raise faulty(manifest, Fault(manifest.file, line, "limits.max_cost_usd", message))
    return Expansion(manifest, model, looks, options, reject, capped=capped)


def fingerprint(manifest: Manifest, model: Model, options: Options, selection: Selection, *, capped: bool) -> str:
    """Return what stands for all that the jobs of a manifest are made of, but for its local images.

    Files count by their content: one that was changed and kept its time and size is noticed. `capped`: there is a
    limit to the cost, under which each must have a price.
    """
    facts = {
        "version": __version__,
        "manifest": manifest.sha256,
        "root": str(manifest.root),
        "rows": manifest.rows_digest(),
        "model": model.entry,
        "options": asdict(options),
        "selection": selection.facts(),
        "capped": capped,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def warnings(
    unkept: int, outside: Collection[str], blank: Mapping[str, int], not_taken: Mapping[str, str]
) -> list[str]:
    """Return what should be said before the run.

    `unkept`: jobs of whose results the vendor keeps no copy; `outside`: local images that do not lie in the manifest's
    folder; `blank`: by variable that a template writes, the rows in which its cell is empty; `not_taken`: by column
    that nothing uses, the provider where it is an input.
    """
    found = []
    if unkept:
        said = f"{UNKEPT} is on for {jobs(unkept)}: the vendor keeps no copy of such a result"
        found.append(f"{said}; if it is lost on the way, it is lost")
    if outside:
        count = f"{len(outside):,}{' or more' if len(outside) >= MOST_OUTSIDE else ''}"
        more = f", and {len(outside) - _NAMED:,} more" if len(outside) > _NAMED else ""
        found.append(
            f"{count} of the images that are sent {'does' if len(outside) == 1 else 'do'} not lie in the manifest's "
            f"folder: {', '.join(islice(outside, _NAMED))}{more}"
        )
    found += [
        f"`{name}` is empty in {rows(empty)}, and a template writes it all the same" for name, empty in blank.items()
    ]
    found += [
        f"the column `{name}` is not sent: it is an input at {provider} (--provider {provider}), and none here"
        for name, provider in not_taken.items()
    ]
    return found
