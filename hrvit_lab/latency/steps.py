"""Progress of a race: step k of n, and an upper bound on the time left."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hrvit_lab.latency.timing import Clock


@dataclass(frozen=True)
class Step:
    """The current step.

    Attributes:
        number: its number, from 1.
        count: number of steps. Some may be skipped: an entry that is refused needs no warm-up.
        what: description.
        seconds_left: upper bound for this step and all later ones; rough where something is compiled or exported.
    """

    number: int
    count: int
    what: str
    seconds_left: float

    def __str__(self) -> str:
        return f"step {self.number} of {self.count}: {self.what} (at most about {about(self.seconds_left)} left)"


Report = Callable[[Step], object]
"""A callback for every step, and for every round of a race."""


class Steps:
    """Reports the steps of one race as they begin."""

    def __init__(self, planned: Mapping[str, float], report: Report, clock: Clock = time.monotonic) -> None:
        """``planned``: upper bound in seconds by name of the step, in order."""
        self._planned = dict(planned)
        self._report = report
        self._clock = clock
        self._name = ""
        self._began = 0.0

    def at(self, name: str, what: str = "", *, seconds: float | None = None) -> None:
        """Report that the step called ``name`` begins or continues.

        Args:
            what: description; by default the name.
            seconds: a new bound for this step.
        """
        if name != self._name:
            self._name, self._began = name, self._clock()
        if seconds is not None:
            self._planned[name] = seconds
        names = list(self._planned)
        index = names.index(name)
        left = max(0.0, self._planned[name] - (self._clock() - self._began))
        left += sum(self._planned[later] for later in names[index + 1 :])
        self._report(Step(index + 1, len(names), what or name, left))


def about(seconds: float) -> str:
    """Seconds rounded up, as text.

    >>> about(0.2), about(41), about(130), about(7300)
    ('5 s', '45 s', '3 min', '2 h 2 min')
    """
    if seconds <= 60:
        return f"{5 * max(1, math.ceil(seconds / 5))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
