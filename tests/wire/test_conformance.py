"""What every provider promises, whoever it is, over both wires: each runs this suite unchanged, at its sandbox face."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batcher.catalog import read_strange_entry
from batcher.clock import Clock
from batcher.job import FailureKind
from batcher.provider import PROVIDERS
from batcher.provider.calls import Answer, Download, Wire, WireFault
from batcher.provider.http import HttpWire
from batcher.provider.provider import Provider, Reference
from batcher.provider.replies import (
    Accepted,
    Busy,
    CancelAsked,
    CancelDone,
    Cancelled,
    CancelTooLate,
    Completed,
    Finished,
    Forbidden,
    GenerationFailed,
    Lost,
    Missing,
    OutOfCredit,
    PastPage,
    Queued,
    Reached,
    SubmitReply,
    TurnedDown,
    Unauthorized,
    Unavailable,
    Unsent,
    Working,
)
from batcher.sandbox.faults import FAULTS, FaultPoint
from batcher.sandbox.server import load_models
from batcher.sandbox.world import Conditions, World
from tests.nights.memory import MemoryWire

ALL_MODELS = load_models()


def text_model(api: Provider) -> str:
    """Return a model of a provider that takes a prompt alone."""
    return next(
        key
        for key, entry in ALL_MODELS.items()
        if entry.get("provider", "runcomfy") == api.name and entry["input_schema"]["required"] == ["prompt"]
    )


class Far:
    """The far side of a wire: a provider's API, and what it accepted."""

    def __init__(self, api: Provider, wire: Wire, journal: Callable[[], Any]) -> None:
        self.api, self.wire, self.journal = api, wire, journal
        self.model = text_model(api)

    async def submit(self, model: str = "", **inputs: object) -> SubmitReply:
        body = json.dumps({"prompt": "a cup", "output_format": "jpeg", **inputs}).encode()
        call = self.api.submit(model or self.model, body, 3600.0)
        return self.api.read_submit(await self.wire.send(call), 0.0, model or self.model)

    def reference(self, accepted: Accepted | str) -> Reference:
        if isinstance(accepted, str):
            return Reference(self.model, accepted)
        unit = ALL_MODELS[self.model].get("prices", {}).get("usd_per_unit")
        return Reference(self.model, accepted.request_id, accepted.follow, unit)

    async def status(self, request: Reference) -> object:
        return self.api.read_status(await self.wire.send(self.api.status(request)), 0.0, request)

    async def result(self, request: Reference) -> object:
        return self.api.read_result(await self.wire.send(self.api.result(request)), 0.0, request)

    async def cancel(self, request: Reference) -> object:
        return self.api.read_cancel(await self.wire.send(self.api.cancel(request)), 0.0, request)

    async def settled(self, accepted: object) -> object:
        assert isinstance(accepted, Accepted)
        request = self.reference(accepted)
        for _ in range(400):
            reply = await self.status(request)
            if isinstance(reply, Completed):
                reply = await self.result(request)
            if not isinstance(reply, Queued | Working | Unavailable | Completed):
                return reply
            await asyncio.sleep(0.05)
        return reply


Way = Callable[..., AbstractAsyncContextManager[Far]]


@asynccontextmanager
async def memory(api: Provider, folder: Path, faults: dict[str, float], **more: object) -> AsyncIterator[Far]:
    folder.mkdir(exist_ok=True)
    world = World(Conditions(slots=1, latency=0.5, sigma=0.1, faults=faults, **more), ALL_MODELS)  # type: ignore[arg-type]
    wire = MemoryWire(world, folder / "journal", Clock().now, lambda _: None, seed=1, protocol=api.name)

    async def journal() -> Any:
        return world.journal

    yield Far(api, wire, journal)


@asynccontextmanager
async def http(api: Provider, folder: Path, faults: dict[str, float], **more: object) -> AsyncIterator[Far]:
    options = [part for name, share in faults.items() for part in ("--fault", f"{name}={share}")]
    options += [part for name, value in more.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batcher.sandbox", "--protocol", api.name, "--dir", str(folder), "--until-stdin-ends"),
        *("--slots", "1", "--latency", "0.5", "--sigma", "0.1", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout and process.stdin
    base = (await process.stdout.readline()).decode().strip()
    wire = HttpWire(base, "sandbox", traits=api.traits)

    async def journal() -> Any:
        async with wire.download(f"{base}/journal") as got:
            assert isinstance(got, Download)
            return json.loads(b"".join([block async for block in got.blocks]))

    yield Far(api, wire, journal)
    await wire.close()
    process.stdin.close()
    await process.wait()


@pytest.fixture(params=[memory, http], ids=["memory", "http"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture(params=[*PROVIDERS.values()], ids=[*PROVIDERS])
def api(request: pytest.FixtureRequest) -> Provider:
    found: Provider = request.param
    return found


async def downloaded(wire: Wire, url: str) -> bytes:
    async with wire.download(url) as download:
        assert isinstance(download, Download)
        assert download.status == 200
        content = b"".join([block async for block in download.blocks])
        assert download.length == len(content)
        return content


async def test_a_job_goes_all_the_way(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {}) as far:
        first, second = await far.submit(), await far.submit()
        assert isinstance(first, Accepted) and isinstance(second, Accepted)
        standing = await far.status(far.reference(second))
        assert isinstance(standing, Queued) and standing.position in {0, 1}
        assert isinstance(await far.status(far.reference(first)), Working)
        assert isinstance(await far.result(far.reference(first)), Working), "a result before its time"
        done = await far.settled(first)
        assert isinstance(done, Finished)
        assert (len(done.urls), done.billed_usd) == (1, 0.15)
        assert isinstance(await far.cancel(far.reference(first)), CancelTooLate)
        content = await downloaded(far.wire, done.urls[0])
        assert content == await downloaded(far.wire, done.urls[0]), "the same URL gave other bytes"


async def test_what_waits_can_be_cancelled(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {}) as far:
        await far.submit()
        waiting = await far.submit()
        assert isinstance(waiting, Accepted)
        assert isinstance(await far.cancel(far.reference(waiting)), CancelDone | CancelAsked)
        assert isinstance(await far.settled(waiting), Cancelled)


async def test_what_is_wrong_is_answered_so(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {}) as far:
        assert isinstance(await far.submit("no/such"), TurnedDown)
        came: object = await far.submit(output_format="bmp")
        bad = await far.settled(came) if isinstance(came, Accepted) else came  # some judge it only when it is run
        assert isinstance(bad, TurnedDown | GenerationFailed)
        assert (bad.kind, "invalid input" in bad.message) == (FailureKind.INVALID, True)
        assert isinstance(await far.status(far.reference("../../nobody")), Missing)
        assert isinstance(api.read_probe(await far.wire.send(api.probe())), Reached)


async def test_a_wrong_token_and_an_empty_account_are_told_apart(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {}, token="another") as far:
        assert isinstance(await far.submit(), Unauthorized)
        assert isinstance(await far.status(far.reference("r")), Unauthorized)
    async with way(api, tmp_path / "poor", {}, balance=0.2) as far:
        assert isinstance(await far.submit(), Accepted)
        assert isinstance(await far.submit(), OutOfCredit)
        left = api.read_balance(await far.wire.send(api.balance()))
        assert left == pytest.approx(0.05)


async def test_the_catalogue_tells_what_a_model_takes(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {}) as far:
        call = api.catalogue(far.model)
        assert call
        answer = await far.wire.send(call)
        assert isinstance(answer, Answer)
        (entry,) = api.read_catalogue(json.loads(answer.body), far.model)
        model = read_strange_entry(entry)
        assert (model.id, model.faults({"prompt": "a"})) == (far.model, [])
        assert model.faults({"prompt": 7})
        if api.price_list:
            price = await far.wire.send(api.price_list.price(far.model))
            assert api.price_list.read(price, far.model) == 0.15


@pytest.mark.parametrize(("fault", "kind"), [("fail", FailureKind.FAILED), ("refuse", FailureKind.REFUSED)])
async def test_what_fails_says_why(tmp_path: Path, api: Provider, way: Way, fault: str, kind: FailureKind) -> None:
    async with way(api, tmp_path, {fault: 1.0, "stumble": 0.3}) as far:
        broken = await far.settled(await far.submit())
        assert isinstance(broken, GenerationFailed)
        assert (broken.kind, bool(broken.message)) == (kind, True)


async def test_past_requests_are_found_by_what_was_asked_for(tmp_path: Path, api: Provider, way: Way) -> None:
    if api.history is None:
        pytest.skip(f"{api.traits.title} lists no past requests")
    async with way(api, tmp_path, {}) as far:
        accepted = await far.submit(seed=41)
        assert isinstance(accepted, Accepted)
        await far.settled(accepted)
        page = api.history.read(await far.wire.send(api.history.page(far.model, Clock().now() - 60, None, None)))
        assert isinstance(page, PastPage)
        (listed,) = page.requests
        assert (listed.request_id, listed.inputs, page.cursor) == (accepted.request_id, None, None)
        assert listed.sent_at == pytest.approx(Clock().now(), abs=30)
        page = api.history.read(await far.wire.send(api.history.one(far.model, accepted.request_id)))
        assert isinstance(page, PastPage) and page.requests[0].inputs is not None
        assert page.requests[0].inputs["seed"] == 41
        later = api.history.read(await far.wire.send(api.history.page(far.model, Clock().now() + 600, None, None)))
        assert later == PastPage((), None)
        earlier = api.history.page(far.model, Clock().now() - 600, Clock().now() - 300, None)
        assert api.history.read(await far.wire.send(earlier)) == PastPage((), None)


async def test_what_is_called_certain_is(tmp_path: Path, api: Provider) -> None:
    """No answer to a submission, however it was spoilt, is read as a refusal where the request was accepted."""

    async def spoilt(fault: str) -> None:
        async with memory(api, tmp_path / fault, {fault: 1.0}) as far:
            for _ in range(2):
                before = len(await far.journal())
                reply = await far.submit()
                accepted = (await far.journal())[before:]
                match reply:
                    case Accepted(request_id):
                        assert [entry["id"] for entry in accepted] == [request_id], fault
                    case TurnedDown() | Busy() | Unsent() | Unauthorized() | Forbidden() | OutOfCredit():
                        assert accepted == [], f"{fault}: {reply}"
                    case Lost():
                        assert reply.message, fault

    faults = {one.name for one in FAULTS.values() if one.strikes is FaultPoint.SUBMISSION}
    async with asyncio.TaskGroup() as together:  # some take seconds
        for fault in sorted(faults - {"same_id"}):
            together.create_task(spoilt(fault))


async def test_a_lost_answer_is_a_fault_after_the_first_byte(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {"lose": 1.0}) as far:
        assert isinstance(await far.submit(), Lost)


async def test_urls_that_lead_elsewhere_are_not_followed(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {"foreign_urls": 1.0}) as far:
        assert isinstance(await far.settled(await far.submit()), Finished)


async def test_a_torn_download_raises_where_it_breaks(tmp_path: Path, api: Provider, way: Way) -> None:
    async with way(api, tmp_path, {"tear": 1.0}) as far:
        done = await far.settled(await far.submit())
        assert isinstance(done, Finished)
        with pytest.raises(ConnectionError):
            await downloaded(far.wire, done.urls[0])


async def test_a_connection_that_is_refused_has_sent_nothing(api: Provider) -> None:
    for base in ("http://127.0.0.1:9", "http://no-such-host.invalid"):
        wire = HttpWire(base, "t", traits=api.traits)
        fault = await wire.send(api.submit("m/n", b"{}", 60.0))
        assert isinstance(fault, WireFault) and not fault.sent
        assert isinstance(api.read_submit(fault, 0.0, "m/n"), Unsent)
        async with wire.download(f"{base}/x") as download:
            assert isinstance(download, WireFault)
        await wire.close()
