"""Buys one job, and compares what its API says with what its provider's file assumes. Decides nothing of a run."""

import asyncio
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from batcher.checks.doctor import Check, bad, good, unknown
from batcher.clock import Clock
from batcher.outputs.media import NotMedia, examine
from batcher.provider.calls import Answer, Download, Wire, WireFault
from batcher.provider.damaged_json import parse
from batcher.provider.provider import Offer, Provider, Reference
from batcher.provider.replies import (
    Accepted,
    CancelAsked,
    CancelDone,
    Cancelled,
    CancelReply,
    CancelTooLate,
    Completed,
    Finished,
    GenerationFailed,
    Lost,
    Missing,
    PastPage,
    PollReply,
    Queued,
    SubmitReply,
    Unavailable,
    Unknown,
    Working,
)

LONGEST: Final = 900.0
"""Seconds that the job may take."""
_LOOK: Final = 1.0
"""Seconds between two checks of the one job."""
_LATE: Final = 120.0
"""Seconds that late outputs are waited for, and that the list of past requests is read again."""
_LIST_AGAIN: Final = 10.0
"""Seconds between two readings of the list of past requests, which shows a request late."""
_STRANGE: Final = "00000000-0000-0000-0000-000000000000"
_DIFFERS: Final = 0.005
"""USD that a bill may differ from its estimate by."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is bought."""

    offer: Offer
    body: bytes
    """The input as JSON."""
    estimated_usd: float | None
    outputs: int
    """How many files it asks for."""
    extension: str
    """Of the format that it asks for; nothing where it asks for none."""


@dataclass(slots=True)
class Bought:
    """What was seen. Times are seconds since the submission was answered."""

    submitted: SubmitReply
    raw: Answer | WireFault
    polls: list[PollReply] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """The server's own words for the states, in the order in which they came first."""
    early: PollReply | None = None
    """What the result's call said while the job was at work."""
    completed_after: float | None = None
    outputs_after: float | None = None
    result: PollReply | None = None
    cancelled: CancelReply | None = None
    strange: PollReply | None = None
    """What was said of a request that nobody has."""
    balance_before: float | str = "not asked"
    balance_after: float | str = "not asked"
    listed_after: float | None = None
    listed: str = ""
    """What was said of the list of past requests, where it could not be read."""
    files: list[tuple[str, bytes | str]] = field(default_factory=list)
    """URL, and the file or why it did not come."""


async def buy(api: Provider, wire: Wire, clock: Clock, order: Order) -> Bought:
    """Submit the job once, and see it to its end; whatever goes wrong is a finding, and nothing is submitted again."""
    before = api.read_balance(await wire.send(api.balance()))
    begun = clock.now()
    answer = await wire.send(api.submit(order.offer.model_id, order.body, LONGEST))
    submitted = api.read_submit(answer, clock.now(), order.offer.model_id)
    bought = Bought(submitted, answer, balance_before=before)
    if not isinstance(submitted, Accepted):
        return bought
    request = Reference(order.offer.model_id, submitted.request_id, submitted.follow, order.offer.unit_usd)
    await _watch(api, wire, clock, request, bought, begun)
    bought.cancelled = api.read_cancel(await wire.send(api.cancel(request)), clock.now(), request)
    stranger = Reference(request.model, _STRANGE)
    bought.strange = api.read_status(await wire.send(api.status(stranger)), clock.now(), stranger)
    if isinstance(bought.result, Finished):
        for url in bought.result.urls:
            bought.files.append((url, await _fetched(wire, url)))
    bought.balance_after = api.read_balance(await wire.send(api.balance()))
    await _look_into_the_list(api, wire, clock, request, bought, begun)
    return bought


async def _watch(api: Provider, wire: Wire, clock: Clock, request: Reference, bought: Bought, begun: float) -> None:
    while (waited := clock.now() - begun) < LONGEST:
        answer = await wire.send(api.status(request))
        reply = api.read_status(answer, clock.now(), request)
        bought.polls.append(reply)
        if (word := _word(answer)) and word not in bought.words:
            bought.words.append(word)
        if isinstance(reply, Queued | Working) and bought.early is None:
            bought.early = api.read_result(await wire.send(api.result(request)), clock.now(), request)
        if isinstance(reply, Completed | Finished | GenerationFailed | Cancelled):
            bought.completed_after = bought.completed_after or waited
            bought.result = api.read_result(await wire.send(api.result(request)), clock.now(), request)
            if isinstance(bought.result, GenerationFailed | Cancelled) or _has_output(bought.result):
                bought.outputs_after = clock.now() - begun
                return
            if clock.now() - begun - bought.completed_after > _LATE:
                return
        await asyncio.sleep(_LOOK)


def _word(answer: Answer | WireFault) -> str:
    """Return the server's own word for a state, nothing where it has none."""
    value, _ = parse(answer.body) if isinstance(answer, Answer) else (None, False)
    return str(value.get("status") or "") if isinstance(value, dict) else ""


def _has_output(reply: PollReply) -> bool:
    return isinstance(reply, Finished) and bool(reply.urls)


async def _fetched(wire: Wire, url: str) -> bytes | str:
    async with wire.download(url) as got:
        if not isinstance(got, Download):
            return got.message
        if got.status != 200:  # noqa: PLR2004
            return f"HTTP {got.status}"
        try:
            content = b"".join([block async for block in got.blocks])
        except OSError as error:
            return f"it broke off: {error}"
        if got.length is not None and len(content) != got.length:
            return f"{len(content):,} bytes came, where {got.length:,} were announced"
        return content


async def _look_into_the_list(
    api: Provider, wire: Wire, clock: Clock, request: Reference, bought: Bought, begun: float
) -> None:
    if api.history is None:
        return
    while clock.now() - begun < _LATE + (bought.outputs_after or 0.0):
        page = api.history.read(await wire.send(api.history.page(request.model, begun - 60, None, None)))
        if not isinstance(page, PastPage):
            bought.listed = page.message
            return
        if any(one.request_id == request.request_id for one in page.requests):
            bought.listed_after = clock.now() - begun
            await wire.send(api.history.one(request.model, request.request_id))
            return
        await asyncio.sleep(_LIST_AGAIN)


def findings(api: Provider, order: Order, bought: Bought, *, host: str, headers: Collection[str]) -> Iterator[Check]:
    """Yield what was seen beside what is assumed, and what a difference means.

    `host`: the API's own, with its port; `headers`: names of those that its answers had.
    """
    yield _submission(bought)
    own = sorted(name for name in headers if name.startswith("x-"))
    yield good("headers", f"the vendor's own: {', '.join(own)}" if own else "no headers of the vendor's own")
    if not isinstance(bought.submitted, Accepted):
        return
    yield _follow_ups(bought.submitted, host)
    yield _states(bought)
    yield _early(api, bought)
    yield _end(bought)
    yield _late(bought)
    yield _bill(api, order, bought)
    yield from _outputs(api, order, bought, host)
    yield _cancel(bought)
    yield _stranger(bought)
    if api.history:
        yield _listed(bought)


def _submission(bought: Bought) -> Check:
    match bought.submitted:
        case Accepted(request_id):
            status = bought.raw.status if isinstance(bought.raw, Answer) else 0
            if status == 200:  # noqa: PLR2004
                return good("submission", f"answered HTTP 200 with the request id {request_id}")
            return bad("submission", f"accepted with HTTP {status}", "200 is assumed; an id counts with any status")
        case Lost(message):
            return bad("submission", f"its answer was lost: {message}", "it may be billed; it was not sent again")
        case reply:
            said = getattr(reply, "message", type(reply).__name__)
            return bad("submission", f"turned down: {said}", "nothing was bought; look at the answer in the file")


def _follow_ups(submitted: Accepted, host: str) -> Check:
    if not submitted.follow:
        return good("follow-up", "status URLs are as this program builds them, or none is given")
    named = ", ".join(sorted(submitted.follow))
    elsewhere = sorted({urlsplit(url).netloc for url in submitted.follow.values()} - {host})
    if elsewhere:
        message = f"URLs for {named} lead to {', '.join(elsewhere)}, and the API is at {host}"
        return bad("follow-up", message, "a run does not follow them: it asks by the documented paths")
    return good("follow-up", f"the URLs for {named} are given, and followed")


def _states(bought: Bought) -> Check:
    strange = sorted({reply.word for reply in bought.polls if isinstance(reply, Unknown)})
    if strange:
        words = ", ".join(strange)
        return bad("states", f"a state that no one has described: {words}", "a run waits it out under job_timeout")
    silent = [reply for reply in bought.polls if isinstance(reply, Unavailable)]
    if silent:
        return bad(
            "states", f"{len(silent)} of {len(bought.polls)} checks brought no answer: {silent[0].message}", _REPEATS
        )
    return good("states", f"{', then '.join(bought.words)}, in {len(bought.polls)} checks")


_REPEATS: Final = "a run repeats such checks"


def _early(api: Provider, bought: Bought) -> Check:
    """Compare what the result's call says before the end with what is declared of it."""
    if bought.early is None:
        return unknown("early result", "the job had ended before it could be asked for")
    told = isinstance(bought.early, Queued | Working)
    if told:
        return good("early result", f"asked for too early, the result answers {type(bought.early).__name__.lower()}")
    if api.traits.result_tells_state:
        said = getattr(bought.early, "message", type(bought.early).__name__)
        return bad(
            "early result", f"it does not tell the state: {said}", "a run then asks for the status, at one more request"
        )
    return good("early result", "asked for too early, the result is refused, as assumed")


def _end(bought: Bought) -> Check:
    match bought.result:
        case Finished(urls) if urls:
            count = f"{len(urls)} output{'s' if len(urls) > 1 else ''}"
            return good("end", f"completed after {bought.outputs_after or 0:.1f} s, with {count}")
        case GenerationFailed(kind, message):
            return bad("end", f"{kind}: {message}", "the words are the model's; try another prompt")
        case None:
            return bad("end", f"it did not end within {LONGEST:.0f} s", "its request id is in the file: batcher adopt")
        case reply:
            said = getattr(reply, "message", type(reply).__name__)
            return bad("end", f"no result came: {said}", "its request id is in the file")


def _late(bought: Bought) -> Check:
    if bought.completed_after is None or bought.outputs_after is None:
        return unknown("late outputs", "not seen")
    late = bought.outputs_after - bought.completed_after
    if late > 2 * _LOOK:
        return bad("late outputs", f"outputs came {late:.1f} s after its end", "a run waits for them for ten minutes")
    return good("late outputs", "the outputs are there when the job is said to be completed")


def _bill(api: Provider, order: Order, bought: Bought) -> Check:
    billed = getattr(bought.result, "billed_usd", None)
    of = ""
    if isinstance(bought.balance_before, float) and isinstance(bought.balance_after, float):
        spent = bought.balance_before - bought.balance_after
        of = f"; the balance is ${spent:.3f} less" if spent else "; the balance is as before"
    if billed is None:
        words = {
            "result": "the result has no cost",
            "units": "there are no units beside the result, or no price of one is known",
            "none": "none is told",
        }
        return bad("bill", words[api.traits.bill] + of, "a run then counts its estimate, and says so")
    if order.estimated_usd is None:
        return bad("bill", f"${billed:.3f}{of}; no price was known", "write it under `prices:` in the manifest")
    if abs(billed - order.estimated_usd) > _DIFFERS:
        said = f"${billed:.3f}, where ${order.estimated_usd:.3f} was estimated{of}"
        return bad("bill", said, "write the price under `prices:` in the manifest: a plan is off by that factor")
    return good("bill", f"${billed:.3f}, as estimated{of}")


def _outputs(api: Provider, order: Order, bought: Bought, host: str) -> Iterator[Check]:
    if not bought.files:
        return
    if len(bought.files) != order.outputs:
        message = f"{len(bought.files)} came, where {order.outputs} were asked for"
        yield bad("outputs", message, "a run takes what comes; `plan` foresees another space")
    hosts = sorted({urlsplit(url).netloc for url, _ in bought.files})
    known = {one for one in hosts if one in {"", host} or f".{one}".endswith(api.traits.file_hosts)}
    if strange := [one for one in hosts if one not in known]:
        assumed = ", ".join(f"*{one}" for one in api.traits.file_hosts)
        message = f"outputs lie on {', '.join(strange)}, none of {assumed}"
        yield bad("hosts", message, "a proxy must let these through too")
    else:
        yield good("hosts", f"outputs lie on {', '.join(hosts) or 'no host: they came within the result'}")
    yield from (_format(order, content) for _, content in bought.files)


def _format(order: Order, content: bytes | str) -> Check:
    if isinstance(content, str):
        return bad("format", f"the output could not be fetched: {content}", "its URL is in the file")
    try:
        media = examine(content)
    except NotMedia as wrong:
        return bad(
            "format", f"what came is not an image or video: {wrong}", "a run tries three times, then fails the job"
        )
    size = f", {media.width} x {media.height}" if media.width else ""
    if order.extension and media.extension != order.extension:
        message = f"{media.extension}{size}, where {order.extension} was asked for"
        return bad("format", message, "files are named by what they are")
    return good("format", f"{media.extension}{size}, {len(content):,} bytes")


def _cancel(bought: Bought) -> Check:
    match bought.cancelled:
        case CancelTooLate(message):
            return good("cancel", f"cancelling a finished job is refused: {message or 'no reason given'}")
        case CancelDone() | CancelAsked():
            return bad(
                "cancel", "of what has ended is answered as if it could be", "a run believes its state, not this"
            )
        case reply:
            return bad("cancel", f"is answered in no known form: {getattr(reply, 'message', reply)}", "see the file")


def _stranger(bought: Bought) -> Check:
    if isinstance(bought.strange, Missing):
        return good("unknown id", f"the API says that it does not know it: {bought.strange.message}")
    said = getattr(bought.strange, "message", type(bought.strange).__name__)
    return bad("unknown id", f"is answered: {said}", "a request that is gone is waited for until job_timeout")


def _listed(bought: Bought) -> Check:
    if bought.listed:
        return bad(
            "past requests", f"cannot be listed: {bought.listed}", "lost submissions stay uncertain with this key"
        )
    if bought.listed_after is None:
        return unknown(
            "past requests", f"not listed within {_LATE:.0f} s of its end: lost ones are found by a later start"
        )
    return good("past requests", f"listed {bought.listed_after:.0f} s after it was accepted")


def saved(bought: Bought, beside: Path) -> Sequence[Path]:
    """Write what was bought beside the file of exchanges; return where."""
    files = []
    for index, (_, content) in enumerate(bought.files, start=1):
        if isinstance(content, str):
            continue
        try:
            extension = examine(content).extension
        except NotMedia:
            extension = "bin"
        names = (f"{beside.stem}-{index}{more}.{extension}" for more in ("", *(f"-{n}" for n in range(2, 1000))))
        file = next(one for name in names if not (one := beside.with_name(name)).exists())
        file.write_bytes(content)
        files.append(file)
    return files


OWN_PROMPT: Final = "A plain white cup on a plain grey table, soft light."
"""Of a job that no manifest names; all else is left to the model's defaults, which are its cheapest."""


def body_of(inputs: dict[str, object]) -> bytes:
    """Return inputs as they are sent."""
    return json.dumps(inputs, ensure_ascii=False, separators=(",", ":")).encode()
