"""What the board says, and how far its guesses can be trusted."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from batcher.cli.wrap import wrapped
from batcher.events import Held, Moved, Silence, Started
from batcher.job import FailureKind, State
from batcher.show.board import Board, Money, drawn, line
from batcher.show.eta import RateMeter, SettledCount, left
from batcher.show.progress import Tally


def text(board: Board, width: int, **how: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, **how)  # type: ignore[arg-type]
    console.print(drawn(board, width))
    return out.getvalue()


BUSY = Board(
    name="autumn " * 40,
    where="the sandbox (REHEARSAL)",
    rehearsal=True,
    states={"pending": 1_000_000, "running": 9_000, "done": 123_456, "failed": 77, "uncertain": 3, "cancelled": 2},
    elapsed=30_000,
    rate=0.4,
    left=(900, 90_000),
    money=Money(18_000.5, (150_000, 190_000), 200_000),
    ceiling=10_000,
    window=9_000,
    holds=31,
    trouble=("the server has given nothing useful since 03:00: \x1b[2J" + "words " * 50,),
    kinds={"refused": 70, "failed": 5, "timeout": 1, "gone": 1},
    last="no \x1b[31m" + "w" * 300,
)


@pytest.mark.parametrize("width", [20, 40, 64, 80, 160, 300])
def test_a_board_fits_its_terminal_and_cannot_be_steered_from_outside(width: int) -> None:
    plain = Console(file=io.StringIO(), width=width)
    with plain.capture() as caught:
        plain.print(drawn(BUSY, width))
    assert max(map(len, caught.get().splitlines())) <= width
    assert "\x1b[2J" not in text(BUSY, width)
    assert ("━" in caught.get()) == (width >= 64)


def test_colour_carries_nothing_and_can_be_left_out() -> None:
    assert "\x1b[3" in text(BUSY, 80)
    assert "\x1b[3" not in text(BUSY, 80, no_color=True)
    for word in (
        "failed",
        "uncertain",
        "70 refused",
        "takes 9,000",
        "15 min 00 s to 25 h 00 min left",
        "limit $200,000.00",
    ):
        assert word in text(BUSY, 160, no_color=True).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "12 %" not in line(BUSY) and "10 %" in line(BUSY)


def moved(at: float, come: State, to: State, **more: object) -> Moved:
    return Moved(at, "j", "n", come, to, **{"kind": None, "message": None, "request_id": "r", "attempt": 1, **more})  # type: ignore[arg-type]


def test_a_tally_follows_the_events() -> None:
    now = [0.0]
    tally = Tally(lambda: now[0])
    tally.take(Started(0, "n", "sandbox", {"pending": 12, "done": 3}, 8, 0.45, 1.8, 5.0))
    for second in range(10):
        now[0] = second + 1.0
        tally.take(moved(now[0], State.PENDING, State.SUBMITTING))
        tally.take(moved(now[0], State.SUBMITTING, State.RUNNING))
        tally.take(moved(now[0], State.RUNNING, State.FETCHING, billed_usd=0.3))
        tally.take(moved(now[0], State.FETCHING, State.DONE, billed_usd=0.3))
    tally.take(moved(now[0], State.PENDING, State.FAILED, kind=FailureKind.SOURCE, message="gone"))
    tally.take(Held(now[0], "no room", 5.0, 3))
    board = tally.board()
    assert {state: count for state, count in board.states.items() if count} == {"pending": 1, "done": 13, "failed": 1}
    assert board.rate == pytest.approx(10 / 9, rel=0.15)
    assert board.left is not None and board.left[0] < 1.5 < board.left[1]
    assert board.money.billed == pytest.approx(3.45)
    assert board.money.end == pytest.approx((3.6, 3.75))
    assert (board.window, board.holds, board.kinds, board.rehearsal) == (3, 1, {"source": 1}, True)
    assert board.trouble == ("the API takes no more for now (no room); trying again in 5 s",)
    tally.take(Held(now[0], "ClientConnectorError: refused", 5.0, 3, reached=False))
    assert tally.board().trouble == ("cannot reach the API; trying again in 5 s",)
    tally.take(Silence(now[0], "nothing since 1", 1.0))
    now[0] += 6
    assert tally.board().trouble == ("nothing since 1",)
    tally.take(Silence(now[0], "the server answers again", None))
    assert tally.board().trouble == ()


def test_a_job_that_this_run_does_not_count_is_not_counted() -> None:
    tally = Tally(lambda: 0.0)
    tally.take(Started(0, "n", "x", {"pending": 1}))
    tally.take(moved(0, State.RUNNING, State.FETCHING))
    assert min(tally.board().states.values()) >= 0


@given(st.integers(0, 10_000), st.integers(-500, 500), st.floats(0, 600), st.integers(0, 5_000), st.floats(0, 1e5))
def test_a_guess_is_a_range_or_none(jobs: int, recent: int, seconds: float, all_: int, whole: float) -> None:
    found = left(jobs, SettledCount(recent, seconds), SettledCount(all_ - 100, whole))
    assert found is None or 0 <= found[0] <= found[1]


def test_the_time_left_is_within_its_range_nine_times_in_ten() -> None:
    chance, held, told = random.Random(5), 0, 0
    for _ in range(200):
        meter, now, settled, guesses = RateMeter(0.0, 0), 0.0, 0, []
        while settled < 400:
            now += chance.expovariate(4.0)
            settled += 1
            meter.take(now, settled)
            if settled in {40, 100, 200}:
                guesses.append((now, left(400 - settled, meter.lately(now, settled), meter.whole(now, settled))))
        for at, guess in guesses:
            if guess:
                told += 1
                held += guess[0] <= now - at <= guess[1]
    assert told > 500
    assert held / told >= 0.9


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_broken_between_words_and_commands_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = "2 lost: may have been accepted, and billed; it says what is known, and asks"
    broken = wrapped(said, Terminal())
    assert " ".join(line.strip() for line in broken.splitlines()) == said
    assert len(broken.splitlines()) > 1 and all(len(line) <= 40 for line in broken.splitlines())
    assert [line[:2] == "  " for line in broken.splitlines()] == [False, True, True]
    command = "next: batcher resume runs/a-long-name-of-a-directory.sandbox --max-cost 5.70"
    assert wrapped(command, Terminal()) == command
    assert wrapped(said, io.StringIO()) == said, "what is not a terminal gets lines as they are"
