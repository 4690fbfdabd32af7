"""Writes `OUT/report.html` from the ledger: one page, no server, whatever its texts hold. Memory holds no job."""

import base64
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TextIO

from jinja2 import Environment, StrictUndefined

from batcher.clock import Clock, rfc3339
from batcher.ledger.reader import Reader
from batcher.settings import SANDBOX
from batcher.show.report.album import Album
from batcher.show.report.earlier import EarlierResults
from batcher.show.report.figures import Figure, figures
from batcher.show.report.flags import WORDS
from batcher.show.report.gallery import Gallery, ReportPaths, Shown
from batcher.show.run_status import RunCost, RunStatus
from batcher.show.status import status_of
from batcher.show.words import next_command
from batcher.version import __version__

MOST: Final = 20_000
"""Jobs that a page shows unless more are asked for."""
_EVERY: Final = 100
"""Jobs between two reports of progress."""

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What a report holds."""

    file: Path
    jobs: int
    shown: int
    cards: int
    flags: Mapping[str, int]
    elsewhere: int
    """Originals that the manifest names by URL, and that were not fetched."""


def write_report(out: Path, *, most: int = MOST, told: Told | None = None) -> Written:
    """Write a run's report; `told(jobs, of)` hears how far it is. Raises NotFound, LedgerUnreadable.

    Beyond `most` jobs, that many are shown, evenly spread over the manifest.
    """
    draft, file = out / f".report-{os.getpid()}.part", out / "report.html"
    with Reader(out) as reader:
        meta, status = reader.meta(), status_of(reader)
        every = reader.listed_places()
        places = spread_places(every, most)
        album = Album(out)
        try:
            gallery = Gallery(ReportPaths(out, Path(str(meta.get("root") or "."))), album, EarlierResults(reader, out))
            jobs = _counted(reader.shown(places), len(places), told)
            head = {
                "name": status.name,
                "rehearsal": status.provider == SANDBOX,
                "jobs": len(every),
                "shown": len(places),
                "flagWords": WORDS,
            }
            draft.unlink(missing_ok=True)
            with draft.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as page:
                _write(page, head, status, gallery, (jobs, figures(reader, status), next_command(status, out)))
                page.flush()
                os.fsync(page.fileno())
            draft.replace(file)
        finally:
            album.close()
            draft.unlink(missing_ok=True)
    return Written(file, len(every), len(places), gallery.cards, gallery.flags, len(gallery.elsewhere))


def spread_places(places: "array[int]", most: int) -> "array[int]":
    """Return no more than `most` of the places, evenly spread."""
    if len(places) <= most:
        return places
    return array("q", (places[(2 * n + 1) * len(places) // (2 * most)] for n in range(most)))


def _counted(jobs: Iterator[Shown], of: int, told: Told | None) -> Iterator[Shown]:
    for n, one in enumerate(jobs, start=1):
        yield one
        if told and (n % _EVERY == 0 or n == of):
            told(n, of)


def _write(
    page: TextIO,
    head: Mapping[str, Any],
    status: RunStatus,
    gallery: Gallery,
    rest: tuple[Iterator[Shown], list[Figure], str | None],
) -> None:
    jobs, drawn, then = rest
    own = resources.files("batcher.show.report") / "page"
    style, script = ((own / name).read_text("utf-8") for name in ("report.css", "report.js"))
    before, after = (own / "report.html").read_text("utf-8").split("{{data}}")
    facts = {
        "run": head,
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "made": f"{(rfc3339(Clock().now()) or '')[:16].replace('T', ' ')} UTC",
        "summary": _summary(status, rehearsal=head["rehearsal"]),
        "figures": drawn,
        "next": then,
        "version": __version__,
    }
    templates = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    page.write(templates.from_string(before).render(facts))
    page.write('{"cards":[')
    page.writelines(("," if n else "") + "\n" + in_page(card) for n, card in enumerate(gallery.cards_of(jobs)))
    page.write('\n],\n"twins":' + in_page(gallery.twins()))
    page.write(',\n"words":[')
    page.writelines(("," if n else "") + in_page(text) for n, text in enumerate(gallery.words.texts))
    page.write("]")
    page.write(',\n"run":' + in_page(head) + "}")
    page.write(templates.from_string(after).render(facts))


def in_page(value: object) -> str:
    """Write JSON that cannot end the element it stands in. Halves of pairs become escapes as they are encoded."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(style: str, script: str) -> str:
    """Return the page's Content-Security-Policy: it loads pictures beside it, runs its own script, reaches nobody."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )


def _summary(status: RunStatus, *, rehearsal: bool) -> list[tuple[str, str, str]]:
    """Return what the head of the page says: a name, a value, and what is to be added to it."""
    states, cost = status.states, status.cost_usd
    at_work = sum(states[name] for name in ("submitting", "running", "fetching"))
    said = [
        ("done", f"{states['done']:,}", f"of {status.total:,}"),
        ("at work", f"{at_work:,}", ""),
        ("waiting", f"{states['pending']:,}", ""),
        ("failed", f"{states['failed']:,}", ""),
        ("uncertain", f"{states['uncertain']:,}", "may have been billed"),
        ("cancelled", f"{states['cancelled']:,}", ""),
        ("simulated cost" if rehearsal else "billed", f"${cost.billed:,.2f}", _not_billed(cost)),
    ]
    return [one for one in said if one[1] not in {"0", "$0.00"} or one[0] == "done"]


def _not_billed(cost: RunCost) -> str:
    more = cost.reserved + cost.at_risk
    return f"and up to ${more:,.2f} not billed yet" if more else ""
