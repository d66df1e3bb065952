"""A clock for tests of whatever measures time: exact, and as fast as the code around it."""


class FakeClock:
    """Seconds that pass only in ``pass_ms``, and in readings if asked for. A deep copy is the same clock, so that a
    model may hold one."""

    def __init__(self, tick_ms: float = 0.0) -> None:
        """``tick_ms``: what each reading takes, so that a call which passes no time takes that long."""
        self.now = 0.0
        self.tick_ms = tick_ms

    def __call__(self) -> float:
        self.pass_ms(self.tick_ms)
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3

    def __deepcopy__(self, memo: object) -> "FakeClock":
        return self
