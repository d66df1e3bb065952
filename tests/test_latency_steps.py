"""Progress of a race: step k of n, a valid bound, one changing line in a terminal and none in a pipe."""

import io
import math

import pytest
from fake_clock import FakeClock
from rich.console import Console
from torch import Tensor, nn

from hrvit_lab.latency import race as lab
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.conditions import NoNvml
from hrvit_lab.latency.measurement import Entry, Setting
from hrvit_lab.latency.models import NamedModel
from hrvit_lab.latency.race import race, race_steps
from hrvit_lab.latency.roofline import Ceilings
from hrvit_lab.latency.show import live
from hrvit_lab.latency.steps import Step, Steps, about


class Slow(nn.Module):
    """A convolution that takes that many milliseconds of a clock."""

    def __init__(self, clock: FakeClock, ms: float) -> None:
        super().__init__()
        self.conv, self.clock, self.ms = nn.Conv2d(3, 4, 1), clock, ms

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.clock.pass_ms(self.ms)
        return self.conv(x_BCHW)


def entry(clock: FakeClock, ms: float, name: str = "a", dtype: str = "float32", backend: str = "eager") -> Entry:
    module = Slow(clock, ms)
    return Entry(NamedModel(name, module, module), backend, dtype)


def test_step_numbers_and_bounds_against_hand_computation() -> None:
    clock, told = FakeClock(), list[Step]()
    steps = Steps({"build": 10.0, "race": 60.0, "energy": 3.0}, told.append, clock)
    steps.at("build")
    clock.pass_ms(4_000)
    steps.at("build", "compiling")  # the step continues: four of its ten seconds have passed
    clock.pass_ms(26_000)
    steps.at("build")  # longer than its bound
    steps.at("race", seconds=100.0)
    clock.pass_ms(40_000)
    steps.at("race", "round 7")
    steps.at("energy")
    assert [(step.number, step.count, step.what, step.seconds_left) for step in told] == [
        (1, 3, "build", 73.0), (1, 3, "compiling", 69.0), (1, 3, "build", 63.0),
        (2, 3, "race", 103.0), (2, 3, "round 7", pytest.approx(63.0)), (3, 3, "energy", 3.0),
    ]  # fmt: skip
    assert str(told[0]) == "step 1 of 3: build (at most about 2 min left)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "5 s"), (5.0, "5 s"), (5.1, "10 s"), (60.0, "60 s"), (60.1, "2 min"), (3599.0, "1 h 0 min")],
)
def test_bounds_are_rounded_up(seconds: float, words: str) -> None:
    assert about(seconds) == words


@pytest.mark.parametrize("call_ms", [0.01, 10.0, 3_000.0])
def test_a_race_reports_all_steps_and_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch, call_ms: float) -> None:
    """After each report, the remaining time is at most the reported one. If a call takes seconds, seven rounds take
    longer than the budget; the bound is correct once the duration of calls is known."""
    monkeypatch.setattr(lab, "measure_ceilings", lambda *_, **__: Ceilings(1e9, 1e9))
    clock, told = FakeClock(), list[tuple[float, Step]]()
    monkeypatch.setattr(lab, "Steps", lambda planned, report: Steps(planned, report, clock))
    entries = [entry(clock, call_ms), entry(clock, call_ms, "b"), entry(clock, call_ms, "b", "bfloat16")]
    budget = Budget(max_seconds=30.0)
    race(entries, Setting((8, 8)), budget, clock=clock, report=lambda step: told.append((clock.now, step)))
    planned = list(race_steps(entries, Setting((8, 8)), budget))
    assert [step.number for _, step in told] == sorted(step.number for _, step in told)
    assert {step.number for _, step in told} == set(range(1, len(planned) + 1))
    assert {step.count for _, step in told} == {len(planned)}
    assert planned == [
        "ceilings in float32: matrix products and a copy", "ceilings in bfloat16: matrix products and a copy",
        "a, eager, float32: numerics", "a, eager, float32: warming up",
        "b, eager, float32: numerics", "b, eager, float32: warming up",
        "b, eager, bfloat16: numerics", "b, eager, bfloat16: warming up", "race",
    ]  # fmt: skip
    calls = 9 * call_ms / 1e3  # of the numerics and of counting MACs, which have no bound
    for at, step in told:
        if call_ms < 1_000 or step.what.startswith("r"):  # the duration of seven rounds is known
            assert clock.now - at <= step.seconds_left + calls, step


def test_energy_is_a_step_if_there_is_a_meter() -> None:
    clock = FakeClock()
    entries, gpu = [entry(clock, 1.0)], Setting((8, 8), device="cuda")
    with_meter = race_steps(entries, gpu, Budget(), nvml=object())
    without = race_steps(entries, gpu, Budget(), nvml=NoNvml("no driver"))
    assert list(with_meter)[-2:] == ["power of the idle device", "a, eager, float32: energy"]
    assert list(without)[-1] == "race" and sum(without.values()) < sum(with_meter.values()) < math.inf


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_in_a_terminal_and_not_in_a_pipe(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    with live(console, "[b]a, 224×224: ") as report:
        report(Step(3, 9, "a[/x], eager: warming up", 170.0))
        console.print("a result")
    shown = text.getvalue()
    assert "a result" in shown
    assert ("[b]a, 224×224: step 3 of 9: a[/x], eager: warming up (at most about 3 min left)" in shown) is terminal
    assert ("0:00:00" in shown) is terminal  # time elapsed
