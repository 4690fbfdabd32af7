"""What a provider is: it builds calls, reads answers into closed sets, and declares what it can. Sends nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from batcher.provider.calls import Answer, Call, WireFault
from batcher.provider.replies import CancelReply, PastReply, PollReply, ProbeReply, SubmitReply


@dataclass(frozen=True, slots=True)
class Reference:
    """A request that a provider has accepted: what is needed to ask about it."""

    model: str
    request_id: str
    follow: Mapping[str, str] = field(default_factory=dict)
    """URLs that the provider gave to ask by, where they are not those that its documents tell."""
    unit_usd: float | None = None
    """The listed price of a unit, where bills are units."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as a provider offers it."""

    model_id: str
    """The provider's own id of it."""
    seeds: range | None = None
    """The numbers that its input takes as `seed`; None where it takes none, or too few to tell requests apart."""
    images: frozenset[str] = frozenset()
    """The inputs that hold images or other media."""
    unit_usd: float | None = None
    """The listed price of a unit, where bills are units."""


@dataclass(frozen=True, slots=True)
class ApiBase:
    """Where an API is: its URL, and the variable of the environment that moves it."""

    url: str
    variable: str
    often_ends: str = ""
    """What the vendor's own tools write at its end, and calls here have in their paths."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a provider can promise, and what it calls things. Whoever needs to know asks here, never who it is."""

    title: str
    """As people write it."""
    repeat: Literal["none", "replay"]
    """What sending a submission once more does: make another request, or give the same one again, by a key."""
    result_tells_state: bool
    """The call for a result says where a request stands until it has ended: no call for its state is needed before."""
    bill: Literal["result", "units", "none"]
    """Where the bill comes from: the result's own dollars, its units times a listed price, or nowhere."""
    full_queue: Literal["rejects", "waits"]
    """What a full queue does with a submission."""
    most_inline_bytes: int
    """Bytes of a request with its images inside that are taken."""
    outputs_live: str
    """How long outputs can be fetched, in the vendor's words."""
    authorization: str
    """What stands before the token in the header `Authorization`."""
    api: ApiBase
    account: ApiBase
    """Where the balance is asked for."""
    token_names: tuple[str, ...]
    """Variables of the environment that hold the token, the first that is set counts."""
    file_hosts: tuple[str, ...]
    """Endings of the names of hosts that outputs lie on."""
    token_hint: str
    """Where a user finds the token."""
    token_pair: tuple[str, ...] = ()
    """Variables that hold its two parts, to be joined by a colon, where none of those above is set."""
    config_folder: str = ""
    """Below `~/.config`: where the vendor's own tools keep the token, in a file `token.json`."""
    config_variable: str = ""
    """The variable of the environment that names another folder."""


class RequestHistory(Protocol):
    """The list of past requests that a vendor keeps: one whose answer was lost may be in it."""

    lists_within: float
    """Seconds from the intent to submit, at most, to the time at which the server got the request."""

    def page(self, model_id: str, since: float, until: float | None, cursor: str | None) -> Call:
        """Build the call for a page of requests of that time, without what was asked for; `until` None: until now."""
        ...

    def one(self, model_id: str, request_id: str) -> Call:
        """Build the call for one request with what was asked for."""
        ...

    def read(self, answer: Answer | WireFault) -> PastReply:
        """Return the requests that an answer lists."""
        ...


class PriceList(Protocol):
    """The listed prices of units, where bills are units."""

    def price(self, model_id: str) -> Call:
        """Build the call for a model's price."""
        ...

    def read(self, answer: Answer | WireFault, model_id: str) -> float | None:
        """Return the dollars of a unit, None where the answer does not say."""
        ...


class Provider(Protocol):
    """A vendor's API. Times are seconds since 1970."""

    name: str
    """As a manifest names it."""
    traits: Traits
    history: RequestHistory | None
    """Past requests can be listed, so that one whose answer was lost may be found; None: they cannot."""
    price_list: PriceList | None

    def submit(self, model_id: str, body: bytes, start_within: float) -> Call:
        """Build the one call that costs money; the body is the model's input as JSON.

        `start_within`: seconds after which a request that still waits is not to be started any more.
        """
        ...

    def status(self, request: Reference) -> Call:
        """Build the call that asks where a request stands."""
        ...

    def result(self, request: Reference, aside: Path | None = None) -> Call:
        """Build the call for a request's outcome and bill; `aside`: the folder for data URIs of a large answer."""
        ...

    def cancel(self, request: Reference) -> Call:
        """Build the call that takes a request out of the queue."""
        ...

    def probe(self) -> Call:
        """Build the call that tells whether the API answers."""
        ...

    def catalogue(self, model_id: str | None = None) -> Call | None:
        """Build the call for the models that there are, or for one of them; None where they are not listed."""
        ...

    def balance(self) -> Call:
        """Build the call for what is left in the account."""
        ...

    def read_submit(self, answer: Answer | WireFault, now: float, model_id: str) -> SubmitReply:
        """Return what became of a submission."""
        ...

    def read_status(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return where a request stands."""
        ...

    def read_result(self, answer: Answer | WireFault, now: float, request: Reference) -> PollReply:
        """Return what came of a request."""
        ...

    def read_cancel(self, answer: Answer | WireFault, now: float, request: Reference) -> CancelReply:
        """Return what became of a cancellation."""
        ...

    def read_probe(self, answer: Answer | WireFault) -> ProbeReply:
        """Return whether the API answers, and takes the token."""
        ...

    def read_catalogue(self, body: object, model_id: str | None = None) -> Sequence[Mapping[str, object]]:
        """Return the entries that the JSON of an answer of the catalogue holds, in this project's form."""
        ...

    def read_balance(self, answer: Answer | WireFault) -> float | str:
        """Return the dollars that are left, or why that is not known."""
        ...
