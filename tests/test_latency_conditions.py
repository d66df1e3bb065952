"""Clock rates, throttling, other processes, energy and roofline: scripted devices and sums computed by hand."""

import importlib
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_clock import FakeClock
from torch import nn

from hrvit_lab.latency import roofline as roofline_module
from hrvit_lab.latency.compare import Budget, Rounds
from hrvit_lab.latency.conditions import CpuMonitor, GpuMonitor, NoNvml, Reading, load_nvml, monitor, summarise
from hrvit_lab.latency.energy import energy_per_call, idle_power, nvml_meter
from hrvit_lab.latency.engine import disturbances, run_rounds
from hrvit_lab.latency.peak import CORES, cpu_peak, published_peak
from hrvit_lab.latency.roofline import (
    CALLS,
    PRODUCTS,
    SIDES,
    Ceilings,
    has_winograd,
    measure_ceilings,
    roofline,
    time_products,
)
from hrvit_lab.latency.timing import Sample


class NVMLError(Exception):
    pass


class FakeNvml:
    """A management library with one GPU that returns scripted values."""

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
    reading = GpuMonitor(gpu, FakeNvml(processes=3)).read()
    assert (reading.clock_mhz, reading.memory_clock_mhz, reading.temperature_c, reading.power_w) == (
        1980,
        2619,
        61,
        350.0,
    )
    assert (reading.throttled, reading.other_processes) == ((), 2)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [
        (0x1, ()),  # idle is not throttling
        (0x4, ("power limit",)),
        (0x28, ("hardware slowdown", "heat")),
        (0xC0, ("heat, hardware", "power brake")),
    ],
)
def test_throttling_is_named(gpu: torch.device, reasons: int, throttled: tuple[str, ...]) -> None:
    assert GpuMonitor(gpu, FakeNvml(reasons)).read().throttled == throttled


def test_values_that_a_gpu_does_not_provide_are_none(gpu: torch.device) -> None:
    nvml = FakeNvml(has_power=False)
    assert GpuMonitor(gpu, nvml).read().power_w is None
    assert nvml_meter(gpu, nvml) is None


def test_a_core_is_throttled_if_its_counter_increases(tmp_path: Path) -> None:
    counters = [tmp_path / "cpu0", tmp_path / "cpu1"]
    for counter in counters:
        counter.write_text("7\n")
    cpu = CpuMonitor(counters)
    assert cpu.read().throttled == ()
    counters[1].write_text("8\n")
    assert cpu.read().throttled == ("heat",)
    assert cpu.read().throttled == ()


def test_our_own_load_is_not_counted_as_that_of_other_programs() -> None:
    cpu = CpuMonitor([])
    first = cpu.read()
    while (last := cpu.read()).own_s - first.own_s < 0.3:  # this can take long on a busy machine
        sum(range(100_000))
    assert last.busy_s - first.busy_s >= last.own_s - first.own_s - 0.1  # the kernel counts in hundredths


def test_summary_against_hand_computation() -> None:
    readings = [
        Reading(clock_mhz=2000.0, at_s=10.0, busy_s=100.0, own_s=50.0, stolen_s=1.0, other_processes=0),
        Reading(clock_mhz=1500.0, at_s=12.0, other_processes=1),
        Reading(clock_mhz=1800.0, at_s=20.0, busy_s=118.0, own_s=59.0, stolen_s=2.0, other_processes=0),
    ]
    found = json.loads(json.dumps(summarise(readings, cores=2)))
    assert found == {
        "clock_mhz": [1500.0, 1800.0, 2000.0], "memory_clock_mhz": None, "temperature_c": None, "power_w": None,
        "other_cores_busy": 0.9, "stolen_cores": 0.1, "other_processes": 1,
        "remarks": [
            "Other programs kept 0.9 of 2 cores busy during the measurement.",
            "The host of this virtual machine took 0.10 cores during the measurement (steal time).",
            "1 other process used the same GPU.",
        ],
        "notes": [],
    }  # fmt: skip


def test_an_idle_machine_gets_no_remark() -> None:
    readings = [Reading(at_s=0.0), Reading(at_s=10.0, busy_s=10.5, own_s=10.0, other_processes=0)]
    assert summarise(readings)["remarks"] == []


def test_energy_against_hand_computation() -> None:
    """A device of 100 W when idle and 300 W under load; a call takes 1/16 s: 18.75 J in total, 12.5 J net."""
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
            raise NVMLError("Not Found")

    without = monitor(gpu, Stranger())
    assert isinstance(without, CpuMonitor)
    assert without.unknown == (
        "The GPU's clock rates, temperature, power and throttling are unknown: NVML does not find the GPU (Not Found)."
    )
    with_nvml = monitor(gpu, FakeNvml())
    assert isinstance(with_nvml, GpuMonitor)
    with_nvml.read()
    assert with_nvml.unknown == ""
    assert nvml_meter(gpu, Stranger()) is None


@pytest.mark.parametrize(
    ("nvml", "why"),
    [(None, "NVML was not loaded"), (NoNvml("run pip install nvidia-ml-py"), "run pip install nvidia-ml-py")],
)
def test_without_nvml_the_monitor_says_which_values_are_unknown(gpu: torch.device, nvml: Any, why: str) -> None:
    assert monitor(gpu, nvml).unknown == f"The GPU's clock rates, temperature, power and throttling are unknown: {why}."
    assert nvml_meter(gpu, nvml) is None
    assert monitor(torch.device("cpu"), nvml).unknown == ""


class MigNvml(FakeNvml):
    """A GPU divided by MIG: the instance has its own UUID, and NVML supports few queries (docs:
    NVML_ERROR_NOT_SUPPORTED)."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "MIG-0123":
            raise NVMLError("Not Found")
        return "a part"

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvmlDevice") and name not in {
            "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetComputeRunningProcesses",
        }:  # fmt: skip
            return self._refuse
        return super().__getattribute__(name)

    def _refuse(self, *_: Any) -> None:
        raise NVMLError("Not Supported")


def test_values_that_nvml_does_not_provide_for_a_mig_instance_are_a_note(gpu: torch.device) -> None:
    nvml = MigNvml()
    _, conditions = run_rounds(
        {"a": lambda: Sample(1.0)}, Budget(min_rounds=5, max_rounds=5), gpu, clock=FakeClock(), nvml=nvml
    )
    assert conditions["notes"] == [
        "NVML does not provide this GPU's throttling, power, clock, memory clock, temperature: Not Supported."
    ]
    assert conditions["clock_mhz"] is conditions["power_w"] is None and conditions["other_processes"] == 0
    assert nvml_meter(gpu, nvml) is None


def test_a_failure_to_start_nvml_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeNvml):
        def nvmlInit(self) -> None:  # noqa: N802
            raise NVMLError("Driver Not Loaded")

    monkeypatch.setattr(importlib, "import_module", lambda name: Broken())
    nvml = load_nvml()
    assert isinstance(nvml, NoNvml)
    assert nvml.reason == "NVML does not start (Driver Not Loaded); check the driver with nvidia-smi"


def test_a_power_limit_is_a_note_and_not_a_disturbance(gpu: torch.device) -> None:
    nvml = FakeNvml()
    turns = itertools.count(1)

    def turn() -> Sample:
        nvml.reasons = nvml.nvmlClocksThrottleReasonSwPowerCap if next(turns) % 3 else 0
        return Sample(1.0)

    rounds, conditions = run_rounds(
        {"a": turn}, Budget(min_rounds=30, max_rounds=30), gpu, clock=FakeClock(), nvml=nvml
    )
    assert rounds.discarded == 0
    assert conditions["notes"] == ["The GPU was at its power limit after 20 of 30 rounds; these rounds are kept."]
    assert disturbances(True, rounds, conditions | {"remarks": []}) == ()


@pytest.mark.parametrize(
    ("steady", "throttled", "remarks", "reasons"),
    [
        (True, [()] * 9, [], []),
        (None, [()] * 9, [], []),  # unknown (too few calls) is not the same as unsteady
        (False, [()] * 9, [], ["The warm-up did not become steady."]),
        (True, [()] * 7 + [("heat",)] * 2, [], []),  # these two rounds are discarded
        (True, [("heat",)] * 6 + [("power brake",)] + [()] * 2, ["Others were there."], [
            "The device was throttled (heat, power brake) in 7 of 9 rounds; they are kept, so this is the "
            "latency of a throttled device.",
            "Others were there.",
        ]),
    ],
)  # fmt: skip
def test_all_measurements_use_one_definition_of_disturbed(
    steady: bool | None, throttled: list[tuple[str, ...]], remarks: list[str], reasons: list[str]
) -> None:
    rounds = Rounds({}, throttled, "precise", 1.0)
    assert disturbances(steady, rounds, {"remarks": remarks}) == tuple(reasons)


def test_the_energy_meter_returns_joules(gpu: torch.device) -> None:
    meter = nvml_meter(gpu, FakeNvml())
    assert meter is not None and meter() == 5.0


def test_roofline_against_hand_computation() -> None:
    """10 GMACs in 100 ms under 400 GFLOP/s and 20 GB/s, with 0.5 GB to move."""
    line = roofline(100.0, 10 * 10**9, 5 * 10**8, Ceilings(gemm_flop_s=400e9, copy_byte_s=20e9))
    assert line.flop_s == pytest.approx(200e9)
    assert line.byte_s == pytest.approx(5e9)
    assert (line.gemm_floor_ms, line.copy_floor_ms, line.distance) == pytest.approx((50.0, 25.0, 2.0))
    unknown = roofline(100.0, 10 * 10**9, None, Ceilings(400e9, 20e9))
    assert (unknown.byte_s, unknown.copy_floor_ms) == (None, None)


CPU = torch.device("cpu")


def test_ceilings_are_computed_from_a_scripted_clock() -> None:
    """Each reading of the clock is a quarter of a second later than the previous one; each product and copy takes that
    time."""
    readings = iter(range(10**6))
    ceilings = measure_ceilings(CPU, "float32", clock=lambda: next(readings) / 4, seconds=0.0)
    assert ceilings.gemm_flop_s == pytest.approx(4 * 2 * 512**3)
    assert ceilings.copy_byte_s == pytest.approx(4 * 2 * 2**28)
    assert {(p.product, p.side) for p in ceilings.tried} == {(name, 512) for name in PRODUCTS}
    assert ceilings.threads == 1 and ceilings.gemm in ceilings.tried


def planted(clock: FakeClock, flop_s: Callable[[int], float]) -> Any:
    """A product of a known speed for each side."""
    return lambda side, device, dtype: lambda: clock.pass_ms(2e3 * side**3 / flop_s(side))


def test_the_ceiling_is_the_fastest_product_at_its_best_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Zen 5 core: ``mm`` reaches 111 GFLOP/s, and the packed product 260, less for matrices larger than the
    cache."""
    clock = FakeClock()
    speeds = {512: 200e9, 1024: 260e9, 2048: 240e9, 4096: 230e9}
    monkeypatch.setattr(
        roofline_module, "PRODUCTS",
        {"torch.mm": planted(clock, lambda side: 111e9), "packed linear": planted(clock, speeds.__getitem__)},
    )  # fmt: skip
    tried = time_products(CPU, torch.float32, clock=clock, seconds=20.0)
    assert {(p.product, p.side) for p in tried} == set(itertools.product(("torch.mm", "packed linear"), SIDES["cpu"]))
    best = max(tried, key=lambda p: p.flop_s)
    assert (best.product, best.side) == ("packed linear", 1024)
    assert best.flop_s == pytest.approx(260e9)


@pytest.mark.parametrize("flop_s", [1e8, 1e9, 1e10, 1e11, 1e12, 1e14])
def test_the_time_for_ceilings_is_bounded(monkeypatch: pytest.MonkeyPatch, flop_s: float) -> None:
    """No side is started that would end after two seconds; the smallest is always measured."""
    clock = FakeClock()
    names = ("a", "b", "c")
    monkeypatch.setattr(roofline_module, "PRODUCTS", {name: planted(clock, lambda side: flop_s) for name in names})
    tried = time_products(CPU, torch.float32, clock=clock, seconds=2.0)
    smallest = 2 * 512**3 / flop_s
    assert clock.now <= max(2.0 + 3 * 2.0 / 12, 3 * (1 + CALLS) * smallest)
    assert {(name, 512) for name in names} <= {(p.product, p.side) for p in tried}


def test_an_unavailable_product_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline_module, "refusal", lambda dtype: "no oneDNN here")
    readings = iter(range(10**6))
    tried = time_products(CPU, torch.float32, clock=lambda: next(readings) / 4, seconds=0.0)
    assert [p.product for p in tried] == ["torch.mm", "F.linear"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_multiplies_its_matrices(name: str) -> None:
    """It is counted as 2·n³ operations, so the output must be that of the whole product."""
    torch.manual_seed(0)
    call = PRODUCTS[name](64, CPU, torch.float32)
    torch.manual_seed(0)
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    torch.testing.assert_close(call(), a @ b if name == "torch.mm" else a @ b.T, atol=1e-4, rtol=1e-4)
    large = PRODUCTS[name](1024, CPU, torch.float32)()
    assert isinstance(large, torch.Tensor) and large.shape == (1024, 1024)


def test_winograd_applies_to_dense_3_by_3_convolutions() -> None:
    conv = nn.Conv2d
    assert has_winograd(nn.Sequential(conv(4, 4, 1), conv(4, 4, 3)))
    others = [conv(4, 4, 3, stride=2), conv(4, 4, 3, groups=4), conv(4, 4, 5), conv(4, 4, 1)]
    assert not has_winograd(nn.Sequential(*others))


def cpuinfo(vendor: str, family: int, model: int, flags: str, cores: int = 4) -> str:
    core = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nflags\t\t: fpu {flags}\n"
    return "\n".join(f"processor\t: {index}\n{core}" for index in range(cores))


@pytest.mark.parametrize(
    ("info", "dtype", "threads", "ghz", "gflop_s"),
    [
        # AMD publishes 4.608 TFLOP/s in float32 for the EPYC 7742, 64 cores at 2.25 GHz; Intel's APP metrics have the
        # Xeon Platinum 8280, 28 cores, at 64 operations a cycle in float32.
        (cpuinfo("AuthenticAMD", 0x17, 0x31, "fma avx2", 64), "float32", 64, 2.25, 4608),
        (cpuinfo("GenuineIntel", 6, 0x55, "fma avx2 avx512f", 28), "float32", 28, 2.7, 4838.4),
        (cpuinfo("AuthenticAMD", 0x1A, 0x02, "fma avx2 avx512f avx512_bf16"), "float32", 1, 4.1, 262.4),
        (cpuinfo("AuthenticAMD", 0x1A, 0x02, "fma avx2 avx512f avx512_bf16"), "bfloat16", 1, 4.1, 524.8),
        (cpuinfo("AuthenticAMD", 0x1A, 0x02, "fma avx2"), "float32", 1, 4.1, 131.2),  # the host hides AVX-512
        (cpuinfo("AuthenticAMD", 0x19, 0x01, "fma avx2"), "bfloat16", 2, None, 320.0),  # at the highest boost of any
        (cpuinfo("GenuineIntel", 6, 0x8F, "fma avx2 avx512f amx_bf16"), "bfloat16", 1, 3.0, 6144),
        (cpuinfo("AuthenticAMD", 0x19, 0x01, "fma avx2", 2), "float32", 8, 3.0, 192),  # eight threads on two cores
        (cpuinfo("AuthenticAMD", 0x19, 0x01, "avx"), "float32", 1, 3.0, None),
        (cpuinfo("AuthenticAMD", 0x30, 0x01, "fma avx2"), "float32", 1, 3.0, None),
        (cpuinfo("Other", 6, 0x55, "fma avx2"), "float32", 1, 3.0, None),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n", "float32", 1, None, None),
        ("vendor_id: GenuineIntel\ncpu family: six\nmodel: 85\n", "float32", 1, None, None),
        ("", "float32", 1, None, None),
    ],
)
def test_the_published_peak(info: str, dtype: str, threads: int, ghz: float | None, gflop_s: float | None) -> None:
    peak = published_peak(info, dtype, threads, ghz)
    assert (None if peak is None else peak.flop_s / 1e9) == (None if gflop_s is None else pytest.approx(gflop_s))


def test_each_processor_matches_at_most_one_microarchitecture() -> None:
    known = [(core.vendor, core.family, model) for core in CORES for model in core.models]
    assert len(known) == len(set(known))


@pytest.mark.skipif(cpu_peak("float32", 1) is None, reason="the peak of this processor is unknown")
def test_this_processor_stays_below_its_peak() -> None:
    ceilings = measure_ceilings(CPU, "float32", clock=time.perf_counter, seconds=0.1)
    assert ceilings.peak_flop_s is not None and not ceilings.above_peak
