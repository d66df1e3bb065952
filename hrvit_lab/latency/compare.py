"""Statistics of a comparison: interleaved rounds, paired ratios, an A/A control.

A machine's speed drifts by more than typical differences between networks. Therefore each competitor runs once in every
round, in random order, and only times of the same round are compared. The reference runs a second time in each round
under the name ``CONTROL``: any difference between the two is an error of the method.

This module only computes on samples. Stopwatches, clock and throttling are passed in, so that tests can replace them.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.conditions import POWER_LIMIT
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.timing import Clock, Sample, Stopwatch

CONTROL = "A/A control"
"""The name of the reference's second entry."""

TAIL_PERCENT = 1.25
"""Percentage of resamples beyond each end of an interval. A race checks its intervals repeatedly and stops once they
are narrow, which favours intervals that are narrow by chance. With 2.5 %, they would cover the true value in 91 to 93 %
of races; with 1.25 %, they cover it in 95 %."""

RESAMPLES = 2000

FEWEST_ROUNDS = 7
"""With fewer rounds, even the range of all samples covers the median too rarely for a 95 % interval."""

Verdict = Literal["faster", "slower", "tie"]
Stop = Literal["precise", "rounds", "time", "interrupted"]


@dataclass(frozen=True)
class Budget:
    """Stopping rule: stop when the interval of every ratio is narrow enough, within bounds on rounds and seconds.

    Attributes:
        half_width: stop when the half-width of every ratio's interval is below this fraction.
        min_rounds: number of kept rounds before intervals are checked; early intervals can be narrow by chance.
        max_rounds: stop after this many rounds.
        max_seconds: stop after this many seconds, but not before ``FEWEST_ROUNDS``.
    """

    half_width: float = 0.01
    min_rounds: int = 20
    max_rounds: int = 500
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 3 <= self.min_rounds <= self.max_rounds:
            raise ConfigError(
                f"min_rounds {self.min_rounds} and max_rounds {self.max_rounds} must satisfy "
                "3 ≤ min_rounds ≤ max_rounds"
            )
        if not 0 < self.half_width < 1:
            raise ConfigError(f"half_width is {self.half_width}; use a fraction between 0 and 1, such as 0.01")


@dataclass(frozen=True)
class Rounds:
    """The samples of a race.

    Attributes:
        samples: by competitor (``CONTROL`` included), one sample per round, in order, discarded rounds included.
        throttled: for each round, the reasons why the device was throttled; empty if it was not.
        stopped: which stopping rule ended the race.
        seconds: duration of the race.
    """

    samples: dict[str, list[Sample]]
    throttled: list[tuple[str, ...]]
    stopped: Stop
    seconds: float

    @property
    def kept(self) -> list[int]:
        """Indices of the rounds that are kept (``kept_rounds``)."""
        return kept_rounds(self.throttled)

    @property
    def discarded(self) -> int:
        """Number of discarded rounds."""
        return len(self.throttled) - len(self.kept)

    def wall_ms(self, name: str) -> list[float]:
        """Wall times of a competitor in the kept rounds."""
        return [self.samples[name][index].wall_ms for index in self.kept]


def kept_rounds(throttled: Sequence[tuple[str, ...]]) -> list[int]:
    """Indices of the rounds to keep: those without thermal throttling, hardware slowdown or power brake. If these are
    fewer than ``FEWEST_ROUNDS`` or than half, all rounds are kept: throttling is then the normal state of the device.

    A power limit discards no round. Many devices are at their power limit whenever they are loaded, so it is a
    condition of the measurement; keeping only rounds below the limit would bias the result.

    >>> kept_rounds([(), ("heat",), ("power limit",), (), (), (), (), (), ()])
    [0, 2, 3, 4, 5, 6, 7, 8]
    """
    good = [index for index, reasons in enumerate(throttled) if not set(reasons) - {POWER_LIMIT}]
    representative = len(good) >= FEWEST_ROUNDS and 2 * len(good) >= len(throttled)
    return good if representative else list(range(len(throttled)))


def bootstrap_median(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The median, and a percentile interval from the medians of 2,000 seeded resamples with replacement.

    >>> bootstrap_median([2.0, 2.0, 2.0])
    Estimate(value=2.0, low=2.0, high=2.0)
    """
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    medians = np.median(array[picks], axis=1)
    low, high = np.percentile(medians, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Estimate(float(np.median(array)), float(low), float(high))


def paired_ratio(times: Sequence[float], reference_times: Sequence[float], *, seed: int = 0) -> Estimate:
    """Time divided by that of the reference: the median over rounds of the ratio within each round.

    >>> paired_ratio([1.0, 20.0, 3.0], [2.0, 40.0, 6.0])
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    return bootstrap_median([a / b for a, b in zip(times, reference_times, strict=True)], seed=seed)


def judge(ratio: Estimate, control: Estimate) -> Verdict:
    """The verdict on a ratio: a tie if its interval contains 1, or if the A/A control differs as much from 1.

    >>> judge(Estimate(1.05, 1.04, 1.06), Estimate(1.0, 0.99, 1.01))
    'slower'
    >>> judge(Estimate(1.05, 1.04, 1.06), Estimate(1.02, 1.0, 1.06))
    'tie'
    """
    shown_by_control = max(abs(math.log(control.low)), abs(math.log(control.high)))
    if ratio.low <= 1 <= ratio.high or abs(math.log(ratio.value)) <= shown_by_control:
        return "tie"
    return "faster" if ratio.value < 1 else "slower"


def compare(
    stopwatches: Mapping[str, Stopwatch],
    budget: Budget,
    *,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    read_throttling: Callable[[], tuple[str, ...]] = tuple,
    on_round: Callable[[int, float], object] = lambda rounds, half_width: None,
) -> Rounds:
    """Time the competitors in rounds; the first is the reference, and runs a second time as ``CONTROL``.

    Args:
        stopwatches: by name; each makes one call and returns its time.
        budget: stopping rule.
        seed: of the order within rounds.
        clock: returns monotonic seconds, to limit the total time.
        read_throttling: called after each round; returns the reasons why the device was throttled in it.
        on_round: called after each round with the number of rounds and the half-width of the widest interval
            (infinite before there are enough rounds).
    Returns:
        All samples. After Ctrl-C, those of the complete rounds.
    """
    reference = next(iter(stopwatches))
    entries = [*stopwatches.items(), (CONTROL, stopwatches[reference])]
    shuffle = random.Random(seed).shuffle
    done: list[tuple[dict[str, Sample], tuple[str, ...]]] = []
    half_width, next_check = math.inf, budget.min_rounds
    stopped: Stop | None = None
    began = clock()
    try:
        while stopped is None:
            shuffle(entries)
            samples = {name: stopwatch() for name, stopwatch in entries}
            done.append((samples, read_throttling()))
            n = len(done)
            if n == next_check:
                half_width = _widest(_rounds(done), reference, budget)
                next_check += max(1, n // 10)
            on_round(n, half_width)
            if half_width < budget.half_width:
                stopped = "precise"
            elif n == budget.max_rounds:
                stopped = "rounds"
            elif n >= FEWEST_ROUNDS and clock() - began >= budget.max_seconds:
                stopped = "time"
    except KeyboardInterrupt:
        stopped = "interrupted"
    return _rounds(done, stopped, clock() - began)


def _rounds(
    done: Sequence[tuple[dict[str, Sample], tuple[str, ...]]], stopped: Stop = "rounds", seconds: float = 0.0
) -> Rounds:
    names = done[0][0] if done else ()
    return Rounds(
        {name: [samples[name] for samples, _ in done] for name in names},
        [reasons for _, reasons in done],
        stopped,
        seconds,
    )


def _widest(rounds: Rounds, reference: str, budget: Budget) -> float:
    """The largest half-width of all ratios' intervals; infinite while there are too few kept rounds."""
    base = rounds.wall_ms(reference)
    if len(base) < budget.min_rounds:
        return math.inf
    return max(paired_ratio(rounds.wall_ms(name), base).half_width for name in rounds.samples if name != reference)


def knee(batch_sizes: Sequence[int], throughputs: Sequence[float], *, share: float = 0.9) -> int:
    """The smallest batch size that reaches ``share`` of the best throughput.

    >>> knee([1, 8, 64, 256], [100.0, 700.0, 950.0, 1000.0])
    64
    """
    enough = share * max(throughputs)
    return min(batch for batch, rate in zip(batch_sizes, throughputs, strict=True) if rate >= enough)
