"""A value with its interval."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value with its interval of 95 % confidence."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a fraction of the value."""
        return (self.high - self.low) / 2 / self.value
