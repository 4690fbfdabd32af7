"""Everything that can go wrong between a client and a remote queue, by name: what it does, and where it strikes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FaultPoint(StrEnum):
    """Where a fault strikes; a share is of the events of that kind."""

    SUBMISSION = "submission"
    JOB = "job"
    READING = "reading"
    FILE = "file"


class FaultManner(StrEnum):
    """How an answer arrives."""

    WHOLE = "whole"
    NEVER = "never"
    """The connection breaks instead."""
    CUT = "cut"
    """The connection breaks within the body."""
    SLOW = "slow"
    """It comes in drops."""
    NOT_HTTP = "not http"
    """What comes is no HTTP at all."""


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One way to go wrong."""

    name: str
    strikes: FaultPoint
    does: str


_OF_SUBMISSIONS: Final = {
    "busy": "429 with Retry-After in seconds",
    "busy_date": "429 with Retry-After as a date",
    "busy_bare": "429, an empty page",
    "full": "503 with the API's own JSON error",
    "reset": "the connection breaks before anything was accepted",
    "lose": "accepted, and the connection breaks before the answer",
    "cut_early": "accepted, and the answer breaks off before the request id",
    "cut_late": "accepted, and the answer breaks off after the request id",
    "redirect": "307 to another host",
    "error_408": "408, accepted or not",
    "error_500": "500, an empty page, accepted or not",
    "error_502": "502, an empty page, accepted or not",
    "error_503": "503, an empty page, accepted or not",
    "error_504": "504, an empty page, accepted or not",
    "code_504": "504 with an error in the API's own form, accepted or not",
    "code_503": "503 with a server's trouble in the API's own form, accepted or not",
    "code_500_in_200": "200 with the API's own error of a server's trouble, accepted or not",
    "code_408": "408 with an error in the API's own form, accepted or not",
    "code_504_cut": "400 with a server's trouble in JSON that is cut off, accepted or not",
    "refusal_with_id": "accepted, and answered 400 with the request id",
    "cut_clean": "accepted, and the answer ends after the request id, in good order",
    "junk": "accepted, in an answer with junk around its JSON",
    "bad_byte": "accepted, in an answer with a byte that is not UTF-8",
    "absurd": "accepted, in an answer with a number of 6,000 digits and 100,000 nested lists",
    "buried_id": "accepted, in an answer whose request id is not where it belongs",
    "html": "200 with a page of HTML in the place of the JSON, accepted",
    "portal": "200 with the sign-in page of a captive portal, not accepted",
    "not_http": "another protocol's greeting, not accepted",
    "huge": "accepted, in an answer of 50 MB",
    "slow": "accepted, in an answer that comes in drops",
    "code_in_200": "an error in the API's own form with HTTP 200",
    "same_id": "accepted, under the request id of the job before",
    "strange_id": "accepted, under a request id with slashes and dots",
    "foreign_urls": "accepted, with a status_url on another host",
}
TURNED_AWAY: Final = frozenset(
    {"busy", "busy_date", "busy_bare", "full", "reset", "redirect", "portal", "not_http", "code_in_200"}
)
"""Faults of submissions that are never accepted."""
MAYBE_ACCEPTED: Final = frozenset(
    {
        *("code_503", "code_504", "code_500_in_200", "code_408", "code_504_cut"),
        *(f"error_{code}" for code in (408, 500, 502, 503, 504)),
    }
)
"""Faults of submissions of which some are accepted, and some are not."""
_OF_JOBS: Final = {
    "fail": "the generation fails",
    "refuse": "the generation is refused for its content",
    "stuck": "it is in progress for ever",
    "backwards": "it goes from in progress back into the queue, and ends well",
    "odd_word": "its status is a word that no one has described, and it ends well",
    "no_stamps": "its result does not say when it ended",
    "clock_off": "its result's times are two hours off, ahead or behind",
    "no_output": "it is completed, and its result has no output",
    "late_output": "it is completed, and its outputs come four seconds later",
    "file_scheme": "its output is a file:// URL",
    "bill_high": "it is billed at twice its price",
    "gone": "the server forgets the request",
    "unlisted": "the list of past requests, where there is one, never shows it",
    "forgotten": "the server answers 404 for a while, and then knows the request again",
}
_OF_READINGS: Final = {
    "stumble": "a poll is answered 502",
    "read_busy": "a poll is answered 429",
    "read_html": "a poll is answered with a page of HTML",
    "read_cut": "a poll's answer breaks off",
    "read_reset": "a poll's connection breaks",
    "read_other": "a poll is answered about another request",
}
_OF_FILES: Final = {
    "tear": "the download breaks off",
    "file_late": "403 at first, and right later",
    "file_gone": "410 for good",
    "file_500": "500 for good",
    "file_loop": "a redirect to itself",
    "file_short": "fewer bytes than were announced",
    "file_wrong": "bytes that are no image",
    "file_bomb": "an image of 13,000 x 13,000 pixels in a few kilobytes",
    "file_away": "a redirect to another host name",
}

FAULTS: Final[Mapping[str, InjectedFault]] = {
    name: InjectedFault(name, strikes, does)
    for strikes, group in (
        (FaultPoint.SUBMISSION, _OF_SUBMISSIONS),
        (FaultPoint.JOB, _OF_JOBS),
        (FaultPoint.READING, _OF_READINGS),
        (FaultPoint.FILE, _OF_FILES),
    )
    for name, does in group.items()
}


def checked(shares: Mapping[str, float]) -> dict[str, float]:
    """Return the shares, each from 0 to 1, of faults that there are. Raises ValueError."""
    for name, share in shares.items():
        if name not in FAULTS:
            raise ValueError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: a share is from 0 to 1")
    return dict(shares)


def struck(shares: Mapping[str, float], strikes: FaultPoint, draw: float) -> str | None:
    """Return the fault of a kind that a number drawn evenly from 0 to 1 falls on, or None."""
    reached = 0.0
    for name, share in shares.items():
        if FAULTS[name].strikes is strikes:
            reached += share
            if draw < reached:
                return name
    return None
