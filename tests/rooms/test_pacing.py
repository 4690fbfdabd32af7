"""The deciders: window, rate, patience, polling, budget, breaker."""

import json
import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from batcher.clock import chance
from batcher.job import FailureKind, State
from batcher.ledger.import_jobs import spread
from batcher.pacing.budget import Budget, restored
from batcher.pacing.circuit_breaker import CircuitBreaker
from batcher.pacing.outage import Outage, backoff
from batcher.pacing.polling import PRICE_QUEUED, Latencies, LatencyModels, next_check, with_those_at_work
from batcher.pacing.window import Rate, Speed, Window
from tests.bench.polling import Truth, best_fixed_interval, compare, log_normal, mix


def test_the_first_submission_goes_alone_until_it_is_answered() -> None:
    window = Window(32)
    assert window.room(0, 0, 0.0) == 1
    assert window.room(1, 1, 0.0) == 0
    window.accepted(1)
    assert window.room(1, 0, 0.0) == 4, "few at a time, until many were accepted"
    for _ in range(300):
        window.accepted(20)
    assert window.room(1, 0, 0.0) == 31


def refused(window: Window, running: int, now: float) -> float:
    assert window.refused(running, now, 2.0)
    assert not window.refused(running, now + 1.0, 2.0), "one hold, however many are turned away in it"
    assert window.room(0, 0, now + 1.9) == 0 and 0.9 < window.opens_in(now + 1.0) < 1.1
    return now + 2.1


def test_refusals_at_the_same_number_of_jobs_cut_the_window_to_it() -> None:
    window = Window(32)
    window.accepted(1)
    now = 0.0
    for _ in range(3):
        assert not window.limited
        now = refused(window, 5, now)
    assert window.limited and window.size == 5
    assert window.room(3, 0, now) == 1
    window.accepted(5)
    assert window.room(5, 0, now) == 0
    for _ in range(24):
        window.accepted(5)
    assert window.room(5, 0, now) == 1, "now and then one more is tried"
    now = refused(window, 5, now)
    for _ in range(49):
        window.accepted(5)
    assert window.room(5, 0, now) == 0, "ever more rarely"
    for _ in range(3000):
        window.accepted(int(window.size) + 1)
    assert window.size == 32, "and where it is taken, it grows back"


def test_acceptances_far_above_the_number_of_a_refusal_show_that_it_was_for_speed() -> None:
    window, speed = Window(64), Speed()
    window.accepted(1)
    speed.accepted(0.0)
    now = refused(window, 4, 0.0)
    speed.refused(0.0)
    tells = []
    for running in range(4, 9):
        assert window.room(running - 1, 0, now) == 1
        tells.append(window.accepted(running))
        speed.accepted(now)
        now += 0.5
    assert tells == [False, False, False, False, True]
    assert window.by_speed and not window.limited
    speed.too_fast(now)
    assert 1.0 < speed.per_second < 2.0
    assert speed.room(now) == 0 and speed.opens_in(now) > 0.3
    later = now + speed.opens_in(now)
    assert speed.room(later) == 1
    speed.take(later, 1)
    assert speed.room(later) == 0
    pace = speed.per_second
    for _ in range(8):
        now += 1 / pace
        speed.accepted(now)
    assert speed.per_second > pace, "a pace that was kept is tried a little faster"
    speed.too_fast(now, 1.0)
    assert speed.room(now + 1.0) == 0, "what a hold cost is not made up for at once"
    found = speed.per_second
    assert pace * 0.9 < found < pace * 1.2, "what it took before is what it takes"
    for _ in range(8):
        now += 5.0
        speed.accepted(now)
    speed.too_fast(now)
    assert speed.per_second == found, "a pace that was kept is not left for one that came early"
    speed.too_fast(now + 60)
    assert speed.per_second < found


def test_three_lone_refusals_in_a_row_hold_everyone() -> None:
    window = Window(8)
    assert [window.refused_alone() for _ in range(3)] == [False, False, True]
    window.accepted(0)
    assert not window.refused_alone()


@given(lists(floats(0, 10), min_size=2, max_size=50))
def test_turns_are_never_closer_than_the_rate(gaps: list[float]) -> None:
    rate, now, turns = Rate(4.0), 0.0, []
    for gap in gaps:
        now += gap
        turns.append(now + rate.delay(now))
    assert all(later - earlier >= 0.25 - 1e-9 for earlier, later in pairwise(turns))
    assert Rate(None).delay(5.0) == 0.0


def test_waits_grow_to_a_minute() -> None:
    waits = [backoff(tries, chance(1)) for tries in range(40)]
    assert 0.375 <= waits[0] <= 0.625
    assert 45 <= waits[-1] <= 75


def test_patience_counts_from_the_first_silence() -> None:
    patience = Outage(10.0)
    patience.record_trouble(5.0, "silent")
    patience.record_trouble(9.0, "silent")
    assert (patience.exhausted(14.9), patience.exhausted(15.0)) == (False, True)
    patience.shift(7.0)
    assert (patience.exhausted(21.9), patience.exhausted(22.0)) == (False, True)
    patience.record_answer()
    patience.shift(1.0)
    assert not patience.exhausted(100.0)


@given(lists(floats(0.01, 1000), min_size=0, max_size=300), floats(0, 10_000))
def test_the_next_look_is_never_at_once_and_never_far_off(known: list[float], age: float) -> None:
    latencies = Latencies()
    for one in known:
        latencies.add(one)
    curve = latencies.curve
    assert (
        (0.1 if not curve or curve.usual > 10 else 0.03)
        <= next_check(age, latencies)
        <= max(15.0, curve.usual if curve else 0.0)
    )


def test_a_pace_under_one_a_second_leaves_each_its_time_from_when_the_last_was_taken() -> None:
    """A server that keeps no reserve refuses what follows a late message in time; what it named as a wait is enough."""
    speed = Speed()
    speed.refused(0.0)
    speed.too_fast(4.0)
    assert speed.per_second == pytest.approx(0.25)
    speed.take(8.0, 1)
    speed.accepted(9.5)
    assert speed.opens_in(9.5) == pytest.approx(4.0)
    speed.too_fast(12.0, 1.0)
    assert speed.room(12.5) == 0 and speed.room(13.0) == 1
    speed.take(13.0, 1)
    assert speed.opens_in(13.0) == pytest.approx(1 / speed.per_second)


def test_before_anything_is_known_looks_grow_rarer() -> None:
    age, looks = 0.0, 0
    while age < 30:
        age += next_check(age, Latencies())
        looks += 1
    assert looks < 15
    assert next_check(1000.0, Latencies()) == 15.0


def test_the_first_look_comes_when_few_would_be_done() -> None:
    latencies = Latencies()
    for one in range(20, 40):
        latencies.add(float(one))
    assert 18 < next_check(0.0, latencies) < 28
    assert next_check(29.0, latencies) < 6


@pytest.mark.parametrize(
    ("truth", "known", "most"),
    [(log_normal(0.3), 30, 1.04), (log_normal(0.5), 30, 1.04), (log_normal(0.8), 30, 1.04), (mix(), 100, 1.06)],
    ids=["0.3", "0.5", "0.8", "mix"],
)
def test_requests_and_lag_are_near_the_least_possible(truth: Truth, known: int, most: float) -> None:
    ratio, *_ = compare(truth, 0.04, known, rounds=10)
    assert 1.0 <= ratio <= most
    assert best_fixed_interval(truth, 0.04) > ratio


def test_each_resolution_has_its_own_latencies_once_they_are_known() -> None:
    usual = LatencyModels()
    for _ in range(9):
        usual.learn("1K", 5.0)
        usual.learn("4K", 50.0)
    assert usual.of("1K") is usual.all
    usual.learn("1K", 5.0)
    assert 3 < next_check(0.0, usual.of("1K")) < 6
    assert usual.of("never seen") is usual.all


def known(limit: float | None, **classes: float) -> Budget:
    """Make a budget that has seen a bill of each of these classes, so many times its estimate."""
    budget = Budget(limit)
    for name, factor in classes.items():
        budget.learn(name, 1.0, factor)
    return budget


def test_money_is_reserved_settled_and_released() -> None:
    budget = known(1.0, k=1.0)
    assert budget.affords("k", 1.0, alone=False)
    budget.reserve("a", "k", 0.6)
    assert not budget.affords("k", 0.6, alone=False)
    budget.settle("a", "k", 0.6, 0.3)
    assert budget.affords("k", 0.6, alone=False)
    budget.reserve("b", "k", 0.6)
    budget.release("b")
    budget.release("b")
    assert round(budget.committed, 9) == 0.3
    budget.reserve("c", "k", 0.6)
    budget.settle_unbilled("c", has_result=True)
    assert round(budget.committed, 9) == 0.9
    assert Budget(None).affords("k", 1e9, alone=False)


def test_a_job_without_a_price_is_not_affordable_under_a_limit() -> None:
    assert Budget(None).affords("k", None, alone=True)
    assert not Budget(5.0).affords("k", None, alone=True)


def test_before_the_first_bill_a_job_is_reserved_at_ten_times_its_estimate() -> None:
    budget = Budget(5.0)
    for job in "abc":
        assert budget.affords("k", 0.15, alone=False)
        budget.reserve(job, "k", 0.15)
    assert budget.committed == pytest.approx(4.5)
    assert not budget.affords("k", 0.15, alone=False), "the whole budget left before the first bill came"
    budget.settle("a", "k", 0.15, 0.30)
    assert budget.committed == pytest.approx(0.90) and budget.price_changed
    assert budget.affords("k", 0.15, alone=False)
    assert not budget.affords("another", 0.5, alone=False), "of each class a bill of its own"


def test_one_that_fits_by_its_estimate_alone_goes_alone() -> None:
    budget = Budget(0.45)
    assert not budget.affords("k", 0.15, alone=False)
    assert budget.affords("k", 0.15, alone=True)
    budget.reserve("a", "k", 0.15)
    assert budget.committed == pytest.approx(0.45), "all that is left is set aside, and no more"
    assert not budget.is_passed and not budget.affords("k", 0.01, alone=False)
    budget.settle("a", "k", 0.15, 0.15)
    assert budget.affords("k", 0.15, alone=False) and not Budget(0.1).affords("k", 0.15, alone=True)


def test_three_results_without_a_bill_make_a_class_known_at_its_estimate() -> None:
    budget = Budget(5.0)
    for job in "abc":
        budget.reserve(job, "k", 0.15)
    for job in "ab":
        budget.settle_unbilled(job, has_result=True)
    assert budget.committed == pytest.approx(0.30 + 1.5)
    budget.settle_unbilled("c", has_result=True)
    assert budget.committed == pytest.approx(0.45) and budget.classes["k"].is_known
    failing = Budget(5.0)
    for job in "abcd":
        failing.reserve(job, "k", 0.15)
        failing.settle_unbilled(job, has_result=False)
    assert not failing.classes and failing.committed == pytest.approx(0.60), "what failed tells no price"
    failing.reserve("e", "k", 0.15)
    failing.settle("e", "k", 0.15, 0.0)
    assert not failing.classes, "nor does the bill of nothing that it is sent"


def test_a_limit_that_is_set_while_jobs_are_in_flight_reserves_for_them_too() -> None:
    budget = Budget(None)
    budget.reserve("a", "k", 0.15)
    assert budget.committed == pytest.approx(0.15)
    budget.change_limit(5.0)
    assert budget.committed == pytest.approx(1.5)
    budget.change_limit(0.1)
    assert budget.committed == pytest.approx(0.15) and budget.is_passed


def test_what_a_ledger_knows_of_prices_is_known_at_the_next_start() -> None:
    money = [
        {"outcome": "open", "billed": 0.0, "unbilled": 0.3},
        {"outcome": "refused", "billed": 0.0, "unbilled": 7.0},
    ]
    at_work = [{"id": "a", "model": "m", "class": "1K", "estimated": 0.15}]
    at_work += [{"id": "b", "model": "m", "class": "4K", "estimated": 0.15}]
    billed = [{"model": "m", "class": "1K", "estimated": 0.1, "billed": 0.2}]
    found = restored(9.0, money=money, classes=[], results=billed, unbilled=at_work)
    assert found.committed == pytest.approx(0.3 + 1.5) and not found.price_changed
    again = restored(9.0, money=[], classes=json.loads(json.dumps(found.noted())), results=[], unbilled=[])
    assert again.price(("m", "1K"), 0.1) == pytest.approx(0.2)


def test_a_server_that_is_not_reached_says_nothing_of_how_much_it_takes() -> None:
    """Taken for refusals, they cut the window to one, and a run took eight times as long."""
    window = Window(32)
    window.accepted(1)
    now = 0.0
    for _ in range(9):
        assert window.unreached(now, 2.0)
        assert not window.unreached(now + 1, 2.0), "one hold at a time"
        assert window.room(0, 0, now + 1) == 0
        now += 2.0
        assert window.room(0, 0, now) == 1, "after it one goes first"
    window.accepted(1)
    assert window.size == 32 and window.room(1, 0, now) > 1


def test_a_bill_above_its_estimate_makes_what_is_in_flight_dearer() -> None:
    budget = known(10.0, k=1.0, other=1.0)
    for job in "abcd":
        budget.reserve(job, "k", 0.5)
    budget.reserve("e", "other", 1.0)
    budget.settle("a", "k", 0.5, 1.0)
    assert budget.committed == pytest.approx(1.0 + 3 * 1.0 + 1.0)
    assert (budget.price("k", 0.5), budget.price("other", 1.0)) == (1.0, 1.0)
    budget.settle("b", "k", 0.5, 0.5)
    assert budget.price("k", 0.5) == 1.0, "the dearest counts"
    assert budget.committed == pytest.approx(4.5)
    assert budget.short_of(3.0)
    assert not budget.short_of(2.5)


def test_what_an_earlier_process_submitted_is_dearer_too() -> None:
    budget = Budget(50.0, committed=61 * 0.1)
    budget.learn("1K", 0.1, 1.0)
    for n in range(60):
        budget.hold(str(n), "1K", 0.1)
    assert budget.committed == pytest.approx(0.1 + 60)
    assert not budget.affords("1K", 0.1, alone=True)
    for n in range(60):
        budget.settle(str(n), "1K", 9.9, 1.0)  # the manifest's price has changed since: that of the submission counts
    assert budget.committed == pytest.approx(60.1)


@given(lists(floats(0.01, 1.0), min_size=1, max_size=60), integers(1, 30), floats(0.1, 5), floats(0.02, 0.4))
def test_bills_of_up_to_ten_times_their_estimate_pass_no_cap_by_more_than_one_lone_job(
    factors: list[float], window: int, cap: float, estimate: float
) -> None:
    """All bills of one class are alike here, as a vendor's are: it is the estimate that is wrong."""
    factor = 10 * factors[0]
    flying: list[str] = []
    budget, spent, sent = Budget(cap), 0.0, 0
    while True:
        while len(flying) < window and sent < 200 and budget.affords("k", estimate, alone=not flying):
            flying.append(str(sent))
            sent += 1
            budget.reserve(flying[-1], "k", estimate)
            assert budget.committed <= cap + 1e-6 or len(flying) == 1
        if not flying:
            break
        budget.settle(flying.pop(0), "k", estimate, estimate * factor)
        spent += estimate * factor
        assert budget.committed >= spent - 1e-6
    assert spent <= max(cap, estimate * factor) + 1e-6


@given(lists(floats(0.05, 0.9), min_size=30, max_size=60), integers(1, 8), floats(0.5, 5))
def test_no_bill_however_wrong_its_estimate_passes_the_cap_by_more_than_was_in_flight(
    bills: list[float], window: int, cap: float
) -> None:
    flying: list[tuple[str, float]] = []
    budget, spent, highest_ratio = Budget(cap), 0.0, 0.1
    queue = [(str(n), bill) for n, bill in enumerate(bills)]
    while queue or flying:
        while queue and len(flying) < window and budget.affords("1K", 0.1, alone=not flying):
            flying.append(queue.pop(0))
            budget.reserve(flying[-1][0], "1K", 0.1)
        if not flying:
            break
        job, bill = flying.pop(0)
        budget.settle(job, "1K", 0.1, bill)
        spent += bill
        highest_ratio = max(highest_ratio, bill)
        assert budget.committed >= spent - 1e-9
    assert spent <= cap + window * (highest_ratio - 0.1) + 1e-6


def test_caution_counts_what_is_in_a_row() -> None:
    breaker = CircuitBreaker(max_uncertain=3, max_failures=2)
    for _ in range(3):
        breaker.saw(State.SUBMITTING, State.UNCERTAIN, FailureKind.LOST)
    breaker.saw(State.SUBMITTING, State.UNCERTAIN, FailureKind.CRASH)
    assert breaker.single_file
    assert not breaker.too_uncertain
    breaker.saw(State.SUBMITTING, State.RUNNING, None)
    assert not breaker.single_file
    breaker.saw(State.RUNNING, State.FAILED, FailureKind.FAILED)
    breaker.saw(State.FETCHING, State.DONE, None)
    for _ in range(2):
        breaker.saw(State.RUNNING, State.FAILED, FailureKind.FAILED)
    assert not breaker.too_many_failures, "two in a row are what max_failures: 2 allows"
    breaker.saw(State.RUNNING, State.FAILED, FailureKind.FAILED)
    assert breaker.too_many_failures


@given(lists(integers(1, 12), min_size=1, max_size=40), integers(1, 300))
def test_a_sample_is_spread_evenly_over_rows_without_repeating(sizes: list[int], wanted: int) -> None:
    rows = [row for row, size in enumerate(sizes) for _ in range(size)]
    found = spread(rows, wanted)
    assert found == sorted(set(found))
    assert len(found) == min(len(rows), wanted)
    taken = [rows[place] for place in found]
    if wanted <= len(sizes):
        assert len(set(taken)) == len(taken), "a row was sampled twice before another was once"
    elif len(set(sizes)) == 1 and wanted < len(rows):
        counts = [taken.count(row) for row in range(len(sizes))]
        assert max(counts) - min(counts) <= 1


def test_a_sample_meets_every_value_of_a_matrix() -> None:
    rows = [place // 6 for place in range(600)]
    assert {place % 6 for place in spread(rows, 20)} == set(range(6))
    assert {place % 6 for place in spread(rows[:24], 3)} >= {0, 3}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ended", [4, 20, 300, 900])
def test_the_first_to_end_are_no_sample_of_those_at_work(seed: int, ended: int) -> None:
    chance = random.Random(seed)
    all_of_them = sorted(chance.lognormvariate(math.log(60.0), 0.5) for _ in range(1000))
    known, age = [math.log(one) for one in all_of_them[:ended]], all_of_them[ended]
    drawn = with_those_at_work(known, [age] * (1000 - ended))
    assert len(drawn) == ended and drawn == sorted(drawn)
    middle, naive = math.exp(drawn[ended // 2]), math.exp(known[ended // 2])
    assert 60 / 1.6 < middle < 60 * 1.6, f"{middle:.0f} s; those that have ended alone say {naive:.0f} s"
    assert abs(math.log(middle / 60)) <= abs(math.log(naive / 60)) + 0.01


@pytest.mark.parametrize("seed", range(5))
def test_those_that_end_are_a_sample_once_a_wave_has_passed(seed: int) -> None:
    """512 at work at all times: a third are older than the usual latency, always, and are no sign of a slower server."""
    chance = random.Random(seed)
    at_work = [(took := chance.lognormvariate(math.log(30.0), 0.5), took * chance.random()) for _ in range(512)]
    known = Latencies(at_work=lambda: [age for _, age in at_work])
    for _ in range(600):
        known.add(chance.lognormvariate(math.log(30.0), 0.5))
    assert known.curve and 30 / 1.15 < known.curve.usual < 30 * 1.15


def test_jobs_that_have_only_begun_tell_nothing_of_latencies() -> None:
    known = sorted(math.log(one) for one in (50.0, 60.0, 70.0, 80.0))
    assert with_those_at_work(known, [1.0] * 64) is known
    assert with_those_at_work(known, []) is known


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.8])
def test_ends_that_are_only_seen_do_not_move_the_looks_ever_later(sigma: float) -> None:
    """A server that gives no stamps, or whose clock is off: what is learned is what a look saw, hours of it."""
    chance, known, lags = random.Random(3), Latencies(), []
    for _ in range(3000):
        took, age, before = 30 * chance.lognormvariate(0, sigma), 0.0, 0.0
        while True:
            age += next_check(age, known, PRICE_QUEUED)
            if age >= took:
                break
            before = age
        lags.append(age - took)
        known.add_between(before, age)
    assert known.curve and 24 < known.curve.usual < 37
    assert statistics.mean(lags[-500:]) < 1.5 * statistics.mean(lags[100:300])


@given(floats(0, 1e5), floats(0, 1e5), lists(floats(1e-3, 1e5), max_size=60))
def test_an_end_between_two_looks_is_put_between_them(one: float, other: float, known: list[float]) -> None:
    latencies = Latencies()
    for seconds in known:
        latencies.add(seconds)
    before, seen = sorted((one, other))
    latencies.add_between(before, seen)
    if len(latencies) == len(known):
        assert len(known) < 3 and seen > 2 * before, "where nothing is known, this says nothing"
        return
    assert max(before, 1e-3) * (1 - 1e-9) <= math.exp(latencies._logs[-1]) <= max(seen, 1e-3) * (1 + 1e-9)
