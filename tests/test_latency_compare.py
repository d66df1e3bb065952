"""Interleaved comparison: statistics compared with hand computation, races on a scripted clock, and on the real one
(slow)."""

import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hrvit_lab.latency.compare import (
    CONTROL,
    Budget,
    Estimate,
    Rounds,
    bootstrap_median,
    compare,
    judge,
    kept_rounds,
    knee,
    paired_ratio,
)
from hrvit_lab.latency.measurement import Entry, Setting
from hrvit_lab.latency.models import NamedModel
from hrvit_lab.latency.race import race
from hrvit_lab.latency.timing import Sample


def stopwatch(clock: FakeClock, time_ms: Callable[[], float]) -> Callable[[], Sample]:
    """A stopwatch whose calls take scripted times."""

    def measure() -> Sample:
        ms = time_ms()
        clock.pass_ms(ms)
        return Sample(ms)

    return measure


def binomial_tail(n: int, p: float, at_least: int) -> float:
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(at_least, n + 1))


@pytest.mark.parametrize("n", [3, 5, 11, 25])
def test_the_bootstrap_agrees_with_its_exact_distribution(n: int) -> None:
    """For odd n, the resampled median is at most the k-th value if at least half of the draws are among the first k: a
    binomial tail. The interval's ends must be where that distribution reaches 1.25 % and 98.75 %, within the error of
    2,000 resamples."""
    values = [float(k) ** 1.5 for k in range(1, n + 1)]
    random.Random(0).shuffle(values)
    estimate = bootstrap_median(values)
    ordered = sorted(values)
    cumulative = [binomial_tail(n, k / n, (n + 1) // 2) for k in range(1, n + 1)]
    assert estimate.value == ordered[n // 2]
    for end, target in ((estimate.low, 0.0125), (estimate.high, 0.9875)):
        candidates = {
            next(v for v, c in zip(ordered, cumulative, strict=True) if c >= target + d) for d in (-0.0075, 0.0075)
        }
        assert min(candidates) <= end <= max(candidates)


def test_the_bootstrap_of_three_values_against_hand_computation() -> None:
    """Of 27 equally likely resamples, 7 have the lowest value as median and 7 the highest: both ends are the
    extremes."""
    medians = [sorted(draw)[1] for draw in itertools.product([1.0, 2.0, 4.0], repeat=3)]
    assert (medians.count(1.0), medians.count(4.0)) == (7, 7)
    assert bootstrap_median([4.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 4.0)


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=40), st.floats(0.1, 10))
def test_scaling_both_changes_no_ratio(times: list[float], factor: float) -> None:
    others = times[::-1]
    assert paired_ratio([factor * t for t in times], [factor * t for t in others]) == pytest.approx(
        paired_ratio(times, others)
    )


def test_pairing_removes_the_drift() -> None:
    """The machine slows down to a fifth during the race; a slowdown of 2 % is still measured exactly."""
    drift = np.linspace(1, 5, 31)
    ratio = paired_ratio(list(1.02 * drift), list(drift))
    assert ratio == pytest.approx((1.02, 1.02, 1.02))
    assert bootstrap_median(list(drift)).half_width > 0.2


@pytest.mark.parametrize(
    ("ratio", "control", "verdict"),
    [
        (Estimate(1.05, 1.04, 1.06), Estimate(1.0, 0.99, 1.01), "slower"),
        (Estimate(0.95, 0.94, 0.96), Estimate(1.0, 0.99, 1.01), "faster"),
        (Estimate(1.01, 0.99, 1.03), Estimate(1.0, 1.0, 1.0), "tie"),  # the interval contains 1
        # The control differs as much from 1, in the other direction.
        (Estimate(1.02, 1.01, 1.03), Estimate(1.0, 0.97, 1.01), "tie"),
        (Estimate(0.98, 0.97, 0.99), Estimate(1.01, 1.0, 1.025), "tie"),
        (Estimate(1.0, 1.0, 1.0), Estimate(1.0, 1.0, 1.0), "tie"),
    ],
)
def test_verdicts_follow_from_ratio_and_control(ratio: Estimate, control: Estimate, verdict: str) -> None:
    assert judge(ratio, control) == verdict


def test_a_fake_clock_gives_exact_results() -> None:
    clock = FakeClock()
    rounds = compare(
        {"a": stopwatch(clock, lambda: 10.0), "b": stopwatch(clock, lambda: 12.5)}, Budget(min_rounds=5), clock=clock
    )
    assert rounds.stopped == "precise"
    assert {name: len(samples) for name, samples in rounds.samples.items()} == {"a": 5, "b": 5, CONTROL: 5}
    assert rounds.seconds == pytest.approx(5 * (10 + 10 + 12.5) / 1e3)
    assert paired_ratio(rounds.wall_ms("b"), rounds.wall_ms("a")) == Estimate(1.25, 1.25, 1.25)
    assert paired_ratio(rounds.wall_ms(CONTROL), rounds.wall_ms("a")) == Estimate(1.0, 1.0, 1.0)


def test_each_round_runs_the_reference_twice_and_others_once_in_random_order() -> None:
    order: list[str] = []
    names = ("a", "b", "c")

    def recorded(name: str) -> Callable[[], Sample]:
        def measure() -> Sample:
            order.append(name)
            return Sample(1.0)

        return measure

    compare({name: recorded(name) for name in names}, Budget(min_rounds=60), clock=FakeClock())
    rounds = [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert len(rounds) == 60
    assert {tuple(sorted(r)) for r in rounds} == {("a", "a", "b", "c")}
    assert set(rounds) == set(itertools.permutations(("a", "a", "b", "c")))  # all 12 orders in 60 rounds


def noisy(seed: int, clock: FakeClock, spread: float) -> Callable[[], Sample]:
    draw = random.Random(seed)
    return stopwatch(clock, lambda: 10.0 * math.exp(draw.gauss(0, spread)))


@pytest.mark.parametrize(
    ("spread", "budget", "stopped"),
    [
        (0.02, Budget(half_width=0.01, max_rounds=1000), "precise"),
        (0.5, Budget(half_width=0.01, max_rounds=40), "rounds"),
        (0.5, Budget(half_width=0.01, max_seconds=1.0), "time"),  # 30 ms a round: 34 of them
    ],
)
def test_the_race_stops_when_the_interval_is_narrow_or_a_bound_is_reached(
    spread: float, budget: Budget, stopped: str
) -> None:
    clock = FakeClock()
    rounds = compare({"a": noisy(1, clock, spread), "b": noisy(2, clock, spread)}, budget, clock=clock)
    half_widths = [paired_ratio(rounds.wall_ms(x), rounds.wall_ms("a")).half_width for x in ("b", CONTROL)]
    assert rounds.stopped == stopped
    assert (max(half_widths) < 0.01) is (stopped == "precise")
    n = len(rounds.throttled)
    assert {"precise": 20 < n < 1000, "rounds": n == 40, "time": 20 < n < 40}[stopped]


def test_there_are_at_least_seven_rounds() -> None:
    clock = FakeClock()
    rounds = compare({"a": noisy(1, clock, 0.5)}, Budget(max_seconds=0.0), clock=clock)
    assert len(rounds.throttled) == 7


def test_throttled_rounds_are_recorded_but_not_used() -> None:
    clock = FakeClock()
    reasons = itertools.cycle([(), (), ("heat",)])
    slow = itertools.chain.from_iterable(itertools.repeat((10.0, 10.0, 30.0)))
    rounds = compare(
        {"a": stopwatch(clock, lambda: 10.0), "b": stopwatch(clock, lambda: next(slow))},
        Budget(min_rounds=8), clock=clock, read_throttling=lambda: next(reasons),
    )  # fmt: skip
    assert rounds.stopped == "precise"  # as soon as eight rounds count
    assert (len(rounds.samples["b"]), rounds.discarded, rounds.kept) == (11, 3, [0, 1, 3, 4, 6, 7, 9, 10])
    assert rounds.wall_ms("b") == [10.0] * 8
    assert [sample.wall_ms for sample in rounds.samples["b"]].count(30.0) == 3


def test_a_device_that_is_always_throttled_is_still_measured() -> None:
    clock = FakeClock()
    rounds = compare(
        {"a": stopwatch(clock, lambda: 1.0)}, Budget(min_rounds=5), clock=clock,
        read_throttling=lambda: ("power limit",),
    )  # fmt: skip
    assert (rounds.discarded, len(rounds.wall_ms("a"))) == (0, 5)
    assert all(rounds.throttled)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_power_limit_discards_no_round(capped: list[bool]) -> None:
    """Earlier, the decision changed with single rounds: those at the limit were dropped only while seven others were
    left."""
    throttled: list[tuple[str, ...]] = [("power limit",) if held else () for held in capped]
    assert kept_rounds(throttled) == list(range(len(throttled)))
    others = [("power limit", "heat"), *throttled]
    assert kept_rounds(others) == list(range(1 if len(throttled) >= 7 else 0, len(others)))


@pytest.mark.parametrize(("good", "bad", "dropped"), [(7, 7, 7), (7, 8, 0), (50, 49, 49), (50, 51, 0), (6, 1, 0)])
def test_throttled_rounds_are_discarded_only_if_most_rounds_are_good(good: int, bad: int, dropped: int) -> None:
    assert good + bad - len(kept_rounds([()] * good + [("heat",)] * bad)) == dropped


def test_an_interrupt_keeps_the_complete_rounds() -> None:
    calls = itertools.count()

    def until_interrupted() -> Sample:
        if next(calls) == 13:  # in the seventh round, of two calls each
            raise KeyboardInterrupt
        return Sample(1.0)

    rounds = compare({"a": until_interrupted}, Budget(), clock=FakeClock())
    assert rounds.stopped == "interrupted"
    assert {name: len(samples) for name, samples in rounds.samples.items()} == {"a": 6, CONTROL: 6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_rounds": 2}, "min_rounds 2 and max_rounds 500"),
        ({"min_rounds": 9, "max_rounds": 8}, "min_rounds 9 and max_rounds 8"),
        ({"half_width": 1.0}, "half_width is 1.0"),
        ({"half_width": 0.0}, "half_width is 0.0"),
    ],
)
def test_invalid_budgets_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("throughputs", "batch"),
    [([100, 700, 950, 1000], 64), ([100, 890, 900, 1000], 64), ([100, 100, 100, 100], 1), ([10, 20, 1000, 500], 64)],
)
def test_knee_against_hand_computation(throughputs: list[float], batch: int) -> None:
    assert knee([1, 8, 64, 256], throughputs) == batch


def drifting(seed: int, slowdown: float) -> tuple[FakeClock, dict[str, Callable[[], Sample]]]:
    """Two competitors on a machine with drift, jitter of 3 %, and a long delay in one call of thirty."""
    clock, draw = FakeClock(), random.Random(seed)

    def time_ms(factor: float) -> Callable[[], float]:
        def draw_time() -> float:
            speed = 1 + 0.2 * math.sin(clock.now)
            delay = 20.0 * draw.random() if draw.random() < 1 / 30 else 0.0
            return 10.0 * factor * speed * math.exp(draw.gauss(0, 0.03)) + delay

        return draw_time

    return clock, {"a": stopwatch(clock, time_ms(1)), "b": stopwatch(clock, time_ms(slowdown))}


def contains_one(rounds: Rounds) -> bool:
    ratio = paired_ratio(rounds.wall_ms(CONTROL), rounds.wall_ms("a"))
    return ratio.low <= 1 <= ratio.high


@pytest.mark.parametrize("races", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_on_a_simulated_machine_intervals_cover_and_slowdowns_are_detected(races: int) -> None:
    """Of 80 intervals, 76 ± 2 are expected to contain the true value; a slowdown of 5 % is nearly always detected."""
    covered, found = 0, 0
    for seed in range(races):
        clock, stopwatches = drifting(seed, 1.05)
        rounds = compare(stopwatches, Budget(max_seconds=15), seed=seed, clock=clock)
        control = paired_ratio(rounds.wall_ms(CONTROL), rounds.wall_ms("a"))
        covered += control.low <= 1 <= control.high
        found += judge(paired_ratio(rounds.wall_ms("b"), rounds.wall_ms("a")), control) == "slower"
    assert covered >= 0.9 * races
    assert found >= 0.96 * races


class Products(nn.Module):
    """Multiplies two matrices a number of times: constant work in a known proportion."""

    matrix: Tensor

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.register_buffer("matrix", torch.randn(256, 256) / 16)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for _ in range(self.times):
            y = self.matrix @ self.matrix
        return y


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_this_machine_20_races_cover_and_detect_a_planted_slowdown() -> None:
    """20 races of 20 against 21 products: the interval of the control contains 1 and is narrow, and 5 % is detected."""
    once, more = (NamedModel(f"{times} products", m, m) for times in (20, 21) for m in [Products(times)])
    covered = narrow = found = 0
    for seed in range(20):
        _, slower = race([Entry(once), Entry(more)], Setting((8, 8), threads=1), Budget(max_seconds=15), seed=seed)
        assert slower.control is not None and slower.ratio is not None
        control = slower.control
        covered += control.low <= 1 <= control.high
        narrow += control.half_width < 0.02
        found += slower.verdict == "slower"
        print(
            f"{seed:2}: control {control.value:.4f} [{control.low:.4f}, {control.high:.4f}], planted "
            f"{slower.ratio.value:.4f} [{slower.ratio.low:.4f}, {slower.ratio.high:.4f}] {slower.verdict}, "
            f"{len(slower.samples_ms)} rounds, {slower.conditions['other_cores_busy']} cores busy with others"
        )
    print(f"control contains 1: {covered} of 20; narrow: {narrow}; slowdown found: {found}")
    assert covered >= 18 and narrow >= 18 and found >= 18
