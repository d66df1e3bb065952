"""A clock for tests of whatever measures time: exact, and as fast as the code around it."""


class FakeClock:
    """Seconds that pass only in ``pass_ms``. A deep copy is the same clock, so that a model may hold one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3

    def __deepcopy__(self, memo: object) -> "FakeClock":
        return self
