"""`batcher verify`: hashes every file again, and fetches what is missing or damaged; buys nothing."""

import asyncio
import json as json_
from collections.abc import Mapping
from typing import Any

import typer

from batcher.cli import options as o


def verify(out: o.Out, *, json: o.Json = False) -> int:
    """Hash every file again; what is missing or damaged is fetched again while the server has it, never bought again.

    Example: batcher verify runs/products
    """
    from batcher.checks.verify import Verified, damages
    from batcher.errors import EXIT_OK, EXIT_SETTLED
    from batcher.ledger.reader import Reader

    verified = Verified()
    with Reader(out) as reader:
        found = list(damages(out, reader, verified))
    mended: Mapping[str, Any] = _mend(out, found) if found else {"fetched": [], "written": [], "lost": []}
    if json:
        shown = [{"job_id": one.job_id, "file": one.file, "problem": one.problem} for one in found]
        facts = {"files": verified.files, "bytes": verified.bytes, "damaged": shown, **mended}
        typer.echo(json_.dumps(facts, ensure_ascii=False))
    else:
        _show(verified, found, mended)
    return EXIT_SETTLED if found else EXIT_OK


def _mend(out: o.Out, found: list[Any]) -> Mapping[str, Any]:
    """Fetch again what can be had; a done job's only, for another is not whole anyway."""
    from batcher.cli.left import do_or_leave
    from batcher.cli.resume import manifest_folder
    from batcher.errors import BatcherError
    from batcher.runs import open_run

    jobs: dict[str, list[int]] = {}
    sidecars: dict[str, list[int]] = {}
    for one in found:
        if one.state == "done":
            (sidecars if one.sidecar_only else jobs).setdefault(one.job_id, []).append(one.index)
    ask = {"do": "verify", "jobs": jobs, "sidecars": sidecars}

    async def do() -> Mapping[str, Any]:
        async with open_run(out, beside=manifest_folder(out)) as run:
            return await run.requests.repair(jobs, sidecars)

    others = [
        {"job_id": one.job_id, "message": f"{one.file}: {_ends_by(out, one.state)}"}
        for one in found
        if one.state != "done"
    ]
    try:
        said = asyncio.run(do_or_leave(out, ask, do, wait=3600)).facts
    except BatcherError as error:  # no token, no server: what was found is said all the same
        why = [{"job_id": job_id, "message": f"could not be fetched again: {error}"} for job_id in jobs]
        return {"fetched": [], "written": [], "lost": [*why, *others]}
    return {"fetched": [], "written": [], **said, "lost": [*said.get("lost", []), *others]}


def _ends_by(out: o.Out, state: str) -> str:
    from batcher.checks.verify import LEADS_OUT
    from batcher.plain import command

    if state == LEADS_OUT:
        return "this ledger names a file that is not of its run directory; it was left alone"
    if state in {"pending", "submitting", "running", "fetching"}:
        return f"the job is {state}; next: {command('resume', out)}"
    return f"the job is {state}; its good files are fetched by {command('retry', out, '--state', state)}"


def _show(verified: Any, found: list[Any], mended: Mapping[str, Any]) -> None:  # noqa: ANN401
    from batcher.plain import plain
    from batcher.show.words import size

    for one in found:
        typer.echo(plain(f"{one.file} {one.problem}"))
    for file in mended["fetched"]:
        typer.echo(plain(f"{file} was fetched again"))
    for file in mended["written"]:
        typer.echo(plain(f"{file} was written again"))
    for one in mended["lost"]:
        typer.echo(plain(f"job {one['job_id']}: {one['message']}"))
    parts = [f"{verified.files - len(found):,} were whole"]
    if mended["fetched"] or mended["written"]:
        parts.append(f"{len(mended['fetched']) + len(mended['written']):,} are mended")
    if still := len(found) - len(mended["fetched"]) - len(mended["written"]):
        parts.append(f"{still:,} are not")
    typer.echo(f"{verified.files:,} files ({size(verified.bytes)}): {', '.join(parts)}")
