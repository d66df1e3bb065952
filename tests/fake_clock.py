"""A clock for tests of time measurements: exact, and independent of the speed of the machine."""


class FakeClock:
    """Seconds that pass only in ``pass_ms`` and, on request, in readings. A deep copy is the same clock, so that a
    model may contain one."""

    def __init__(self, tick_ms: float = 0.0) -> None:
        """``tick_ms``: time that passes in each reading, so that every call has a duration above 0."""
        self.now = 0.0
        self.tick_ms = tick_ms

    def __call__(self) -> float:
        self.pass_ms(self.tick_ms)
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3

    def __deepcopy__(self, memo: object) -> "FakeClock":
        return self
