"""Clocks, throttling, neighbours, energy and roofline: against scripted devices and sums done by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hrvit_lab.latency.conditions import CpuWatch, GpuWatch, Look, summarise, watch
from hrvit_lab.latency.energy import energy_per_call, idle_power, nvml_meter
from hrvit_lab.latency.roofline import Ceilings, measure_ceilings, roofline


class NVMLError(Exception):
    pass


class FakeNvml:
    """A management library with one GPU, as a script says."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksThrottleReasonGpuIdle = 0x1  # noqa: N815
    nvmlClocksThrottleReasonSwPowerCap = 0x4  # noqa: N815
    nvmlClocksThrottleReasonHwSlowdown = 0x8  # noqa: N815
    nvmlClocksThrottleReasonSwThermalSlowdown = 0x20  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 0x40  # noqa: N815
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 0x80  # noqa: N815

    def __init__(self, reasons: int = 0, processes: int = 1, has_power: bool = True) -> None:
        self.reasons, self.processes, self.has_power = reasons, processes, has_power
        self.millijoules = 5_000.0

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == "GPU-0123"
        return "the gpu"

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        if not self.has_power:
            raise NVMLError
        return 350_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [None] * self.processes

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> float:  # noqa: N802
        if not self.has_power:
            raise NVMLError
        return self.millijoules


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="0123"))
    return torch.device("cuda", 0)


def test_a_gpu_is_read_in_our_units(gpu: torch.device) -> None:
    look = GpuWatch(gpu, FakeNvml(processes=3)).look()
    assert (look.clock_mhz, look.memory_clock_mhz, look.temperature_c, look.power_w) == (1980, 2619, 61, 350.0)
    assert (look.throttled, look.other_processes) == ((), 2)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [
        (0x1, ()),  # idle is no throttling
        (0x4, ("power limit",)),
        (0x28, ("hardware slowdown", "heat")),
        (0xC0, ("heat, hardware", "power brake")),
    ],
)
def test_throttling_is_named(gpu: torch.device, reasons: int, throttled: tuple[str, ...]) -> None:
    assert GpuWatch(gpu, FakeNvml(reasons)).look().throttled == throttled


def test_what_a_gpu_does_not_tell_is_none(gpu: torch.device) -> None:
    nvml = FakeNvml(has_power=False)
    assert GpuWatch(gpu, nvml).look().power_w is None
    assert nvml_meter(gpu, nvml) is None


def test_a_core_throttles_when_its_counter_moves(tmp_path: Path) -> None:
    counters = [tmp_path / "cpu0", tmp_path / "cpu1"]
    for counter in counters:
        counter.write_text("7\n")
    watch = CpuWatch(counters)
    assert watch.look().throttled == ()
    counters[1].write_text("8\n")
    assert watch.look().throttled == ("heat",)
    assert watch.look().throttled == ()


def test_a_busy_loop_of_ours_is_not_anothers() -> None:
    watch = CpuWatch([])
    first = watch.look()
    end = first.at_s + 0.6
    while (last := watch.look()).at_s < end:
        sum(range(100_000))
    assert last.own_s - first.own_s > 0.1
    assert last.busy_s - first.busy_s >= last.own_s - first.own_s - 0.1  # the kernel counts in hundredths


def test_summary_by_hand() -> None:
    looks = [
        Look(clock_mhz=2000.0, at_s=10.0, busy_s=100.0, own_s=50.0, stolen_s=1.0, other_processes=0),
        Look(clock_mhz=1500.0, at_s=12.0, other_processes=1),
        Look(clock_mhz=1800.0, at_s=20.0, busy_s=118.0, own_s=59.0, stolen_s=2.0, other_processes=0),
    ]
    found = json.loads(json.dumps(summarise(looks, cores=2)))
    assert found == {
        "clock_mhz": [1500.0, 1800.0, 2000.0], "memory_clock_mhz": None, "temperature_c": None, "power_w": None,
        "other_cores_busy": 0.9, "stolen_cores": 0.1, "other_processes": 1,
        "remarks": [
            "Other programs kept 0.9 of 2 cores busy meanwhile.",
            "The virtual machine's host withheld 0.10 cores meanwhile.",
            "1 other process computed on the same GPU.",
        ],
    }  # fmt: skip


def test_a_quiet_machine_needs_no_remark() -> None:
    looks = [Look(at_s=0.0), Look(at_s=10.0, busy_s=10.5, own_s=10.0, other_processes=0)]
    assert summarise(looks)["remarks"] == []


def test_energy_by_hand() -> None:
    """A device of 100 W when idle and 300 W at work; a call takes 1/16 s: 18.75 J, of which 12.5 J are the call's."""
    now = joules = 0.0

    def let_pass(seconds: float, watts: float) -> None:
        nonlocal now, joules
        now += seconds
        joules += seconds * watts

    idle_w = idle_power(lambda: joules, seconds=2.0, clock=lambda: now, sleep=lambda s: let_pass(s, 100.0))
    assert idle_w == pytest.approx(100.0)
    energy = energy_per_call(
        lambda: let_pass(0.0625, 300.0), lambda: None, lambda: joules, idle_w=idle_w, seconds=3.0, clock=lambda: now
    )
    assert (energy.gross_j, energy.net_j) == pytest.approx((18.75, 12.5))
    assert (energy.calls, energy.seconds) == (50, 3.125)  # the first whole ten calls after three seconds


def test_a_gpu_that_nvml_does_not_know_is_timed_without_it(gpu: torch.device) -> None:
    class Stranger(FakeNvml):
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
            raise NVMLError

    assert isinstance(watch(gpu, Stranger()), CpuWatch)
    assert isinstance(watch(gpu, FakeNvml()), GpuWatch)
    assert nvml_meter(gpu, Stranger()) is None


def test_the_meter_counts_joules(gpu: torch.device) -> None:
    meter = nvml_meter(gpu, FakeNvml())
    assert meter is not None and meter() == 5.0


def test_roofline_by_hand() -> None:
    """10 GMACs in 100 ms under 400 GFLOP/s and 20 GB/s, with 0.5 GB to move."""
    line = roofline(100.0, 10 * 10**9, 5 * 10**8, Ceilings(gemm_flop_s=400e9, copy_byte_s=20e9))
    assert line.flop_s == pytest.approx(200e9)
    assert line.byte_s == pytest.approx(5e9)
    assert (line.gemm_floor_ms, line.copy_floor_ms, line.distance) == pytest.approx((50.0, 25.0, 2.0))
    unknown = roofline(100.0, 10 * 10**9, None, Ceilings(400e9, 20e9))
    assert (unknown.byte_s, unknown.copy_floor_ms) == (None, None)


def test_ceilings_by_a_scripted_clock() -> None:
    """Each reading of the clock is a quarter of a second after the one before: so long takes each product and copy."""
    readings = iter(range(10**6))
    ceilings = measure_ceilings(torch.device("cpu"), "float32", clock=lambda: next(readings) / 4, seconds=0.0)
    assert ceilings.gemm_flop_s == pytest.approx(4 * 2 * 1024**3)
    assert ceilings.copy_byte_s == pytest.approx(4 * 2 * 2**28)
