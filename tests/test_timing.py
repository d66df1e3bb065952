"""The loops around stopwatches, on scripted samples and a fake clock."""

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrvit_lab.latency.timing import (
    Sample,
    Stopwatch,
    collect,
    cpu_stopwatch,
    garbage_collector_paused,
    intra_op_threads,
    is_steady,
    primed,
    warm_up,
    with_cold_l2,
)


def scripted(times_ms: Iterator[float] | list[float]) -> Stopwatch:
    times = iter(times_ms)
    return lambda: Sample(next(times))


def forever(value: float) -> Iterator[float]:
    while True:
        yield value


def test_a_stopwatch_reads_the_clock_around_the_call() -> None:
    now = 100.0

    def run() -> None:
        nonlocal now
        now += 0.25

    assert cpu_stopwatch(run, lambda: now)() == Sample(250.0, None)


@given(st.lists(st.floats(0.1, 100), min_size=0, max_size=30), st.integers(1, 5), st.floats(0, 0.5))
def test_steadiness_equals_that_of_rolling_medians_in_numpy(
    samples: list[float], window: int, tolerance: float
) -> None:
    if len(samples) < 2 * window:
        expected = False
    else:
        rolling = np.median(np.lib.stride_tricks.sliding_window_view(samples, window), axis=1)[-window - 1 :]
        expected = bool(rolling.max() <= (1 + tolerance) * rolling.min())
    assert is_steady(samples, window=window, tolerance=tolerance) is expected


@pytest.mark.parametrize(
    ("samples", "steady"),
    [
        ([1.0] * 9, False),  # a window and its forerunner need ten
        ([1.0] * 10, True),
        ([1.0] * 8 + [50.0, 1.0], True),  # one outlier
        ([2.0] * 5 + [1.0] * 5, False),  # a step within the window
        ([2.0] * 5 + [1.0] * 10, True),  # and after it
        ([1.1**-k for k in range(30)], False),  # a continuing trend
    ],
)
def test_steady_against_hand_computation(samples: list[float], steady: bool) -> None:
    assert is_steady(samples, window=5, tolerance=0.05) is steady


def test_warm_up_ends_as_soon_as_the_median_is_steady() -> None:
    falling = [9.0, 7.0, 5.0, 3.0]
    samples, steady = warm_up(scripted(falling + [1.0] * 100), window=3, tolerance=0.05, max_runs=100, max_seconds=10)
    assert steady
    # The last four medians of three must all be 1: the oldest has at most one sample from before the plateau.
    assert [sample.wall_ms for sample in samples] == [*falling, *[1.0] * 5]


@pytest.mark.parametrize(("max_runs", "max_seconds", "runs"), [(7, 1e9, 7), (10**9, 0.05, 4)])
def test_warm_up_stops_at_either_bound(max_runs: int, max_seconds: float, runs: int) -> None:
    restless = (10.0 * 1.2**k for k in range(1000))  # 10 + 12 + 14.4 = 36.4 ms, with the next 53.7 ms
    samples, steady = warm_up(scripted(restless), window=5, tolerance=0.05, max_runs=max_runs, max_seconds=max_seconds)
    assert (len(samples), steady) == (runs, None)  # too few to tell


def test_warm_up_detects_an_unsteady_series() -> None:
    restless = (10.0 * 1.2**k for k in range(1000))
    samples, steady = warm_up(scripted(restless), window=5, tolerance=0.05, max_runs=12, max_seconds=1e9)
    assert (len(samples), steady) == (12, False)


def test_a_cold_call_directly_follows_the_flush() -> None:
    """An untimed call between them would warm the cache again."""
    events: list[str] = []

    def bare() -> Sample:
        events.append("timed")
        return Sample(1.0, 10.0 * len(events))

    turn = with_cold_l2(primed(lambda: events.append("untimed"), bare), bare, lambda: events.append("flush"))
    assert turn() == Sample(1.0, 20.0, 40.0)
    assert events == ["untimed", "timed", "flush", "timed"]


@pytest.mark.parametrize(
    ("each_ms", "expected_runs"),
    [(1.0, 50), (100.0, 20), (1000.0, 4)],  # max_runs; 2 seconds; min_runs although over time
)
def test_collect_stops_at_its_bounds(each_ms: float, expected_runs: int) -> None:
    samples = collect(scripted(forever(each_ms)), min_runs=4, max_runs=50, max_seconds=2.0)
    assert len(samples) == expected_runs


@pytest.mark.parametrize(("prepare", "enabled"), [(gc.enable, True), (gc.disable, False)])
def test_the_garbage_collector_is_restored(prepare: Callable[[], None], enabled: bool) -> None:
    prepare()
    try:
        with pytest.raises(ZeroDivisionError), garbage_collector_paused():
            assert not gc.isenabled()
            _ = 1 / 0
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_threads_are_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), intra_op_threads(before + 1) as threads:
        assert torch.get_num_threads() == threads == before + 1
        _ = 1 / 0
    assert torch.get_num_threads() == before
    with intra_op_threads(None) as threads:
        assert threads == before
