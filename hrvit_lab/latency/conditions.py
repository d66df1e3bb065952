"""State of the machine during a measurement: clock rates, temperature, power, throttling, other processes.

A monitor is read between rounds, never inside a timed call. Values that cannot be read are None, not 0.
"""

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import psutil
import torch

BUSY_CORES = 0.25
"""Load of other programs, in cores, above which a remark is made."""

POWER_LIMIT = "power limit"
"""The reason for throttling while a GPU's power cap limits its clock rate."""


@dataclass(frozen=True)
class Reading:
    """One reading of a device's state. Seconds count from an arbitrary start; only differences are meaningful.

    Attributes:
        clock_mhz: clock rate of the CPU cores (mean) or of the GPU's multiprocessors.
        memory_clock_mhz: clock rate of the GPU's memory.
        temperature_c: GPU temperature.
        power_w: present power of the GPU.
        throttled: reasons for throttling since the last reading.
        at_s: time of the reading.
        busy_s: CPU seconds of all programs on all cores.
        own_s: CPU seconds of this process and its threads.
        stolen_s: CPU seconds that the host of a virtual machine gave to others (steal time).
        other_processes: number of other processes on the GPU.
    """

    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled: tuple[str, ...] = ()
    at_s: float = 0.0
    busy_s: float = 0.0
    own_s: float = 0.0
    stolen_s: float = 0.0
    other_processes: int | None = None


class Monitor(Protocol):
    """Reads a device's state."""

    @property
    def unknown(self) -> str:
        """One sentence on which values cannot be read, and why; empty if all can."""

    def read(self) -> Reading:
        """Read the present state."""


class CpuMonitor:
    """Reads the CPU's state. Throttling is known from the kernel's counters per core (bare-metal Linux on Intel)."""

    def __init__(self, counters: Sequence[Path] | None = None, unknown: str = "") -> None:
        """``counters``: files that hold the number of throttling events so far; None takes the kernel's."""
        self.unknown = unknown
        root = Path("/sys/devices/system/cpu")
        kernels = root.glob("cpu*/thermal_throttle/core_throttle_count")
        self._counters = sorted(kernels) if counters is None else counters
        self._events = self._throttle_events()
        self._process = psutil.Process()

    def read(self) -> Reading:
        """Read the present state; throttled if a core's counter has increased since the last reading."""
        before, self._events = self._events, self._throttle_events()
        total = psutil.cpu_times()
        own = self._process.cpu_times()
        idle = total.idle + getattr(total, "iowait", 0.0)
        stolen = getattr(total, "steal", 0.0)
        # User time includes guest time.
        busy = sum(total) - idle - stolen - getattr(total, "guest", 0.0) - getattr(total, "guest_nice", 0.0)
        return Reading(
            clock_mhz=_cpu_clock_mhz(),
            throttled=("heat",) if self._events > before else (),
            at_s=time.monotonic(),
            busy_s=busy,
            own_s=own.user + own.system,
            stolen_s=stolen,
        )

    def _throttle_events(self) -> int:
        return sum(int(path.read_text()) for path in self._counters)


class GpuMonitor:
    """Reads the state of an NVIDIA GPU through NVML, and that of the host's CPU."""

    def __init__(self, device: torch.device, nvml: Any) -> None:
        """``nvml``: the module ``pynvml``, initialised."""
        self._nvml = nvml
        self._handle = nvml_handle(device, nvml)
        self._cpu = CpuMonitor()
        self._refused: dict[str, str] = {}
        # NVML's reasons for throttling. A clock rate limit set by a user and an idle GPU are not throttling.
        self._reasons = {
            nvml.nvmlClocksThrottleReasonSwPowerCap: POWER_LIMIT,
            nvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
            nvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat",
            nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, hardware",
            nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
        }

    def read(self) -> Reading:
        """Read the present state; throttled if one of NVML's reasons holds at this moment."""
        nvml, handle = self._nvml, self._handle
        reasons = self._ask("throttling", nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        milliwatts = self._ask("power", nvml.nvmlDeviceGetPowerUsage, handle)
        processes = self._ask("other processes", nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        host = self._cpu.read()
        return Reading(
            clock_mhz=self._ask("clock", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("memory clock", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("temperature", nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1e3,
            throttled=tuple(name for bit, name in self._reasons.items() if reasons & bit),
            at_s=host.at_s,
            busy_s=host.busy_s,
            own_s=host.own_s,
            stolen_s=host.stolen_s,
            # In a container, NVML may list this process under another id, or not at all.
            other_processes=None if processes is None else max(0, len(processes) - 1),
        )

    @property
    def unknown(self) -> str:
        """Which values NVML could not provide so far, and its error messages."""
        if not self._refused:
            return ""
        errors = ", ".join(dict.fromkeys(self._refused.values()))
        return f"NVML does not provide this GPU's {', '.join(self._refused)}: {errors}."

    def _ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """The result of an NVML query; None if the device or the driver does not support it."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            self._refused[what] = str(error) or type(error).__name__
            return None


@dataclass(frozen=True)
class NoNvml:
    """Used in place of NVML where it is not available.

    Attributes:
        reason: why it is not available, and what to do.
    """

    reason: str


def monitor(device: torch.device, nvml: Any = None) -> Monitor:
    """The monitor of a device.

    Args:
        nvml: ``load_nvml()``. Without it, and where NVML does not list the GPU, only the host's CPU is monitored, and
            ``unknown`` gives the reason.
    """
    if device.type != "cuda":
        return CpuMonitor()
    lacking = "The GPU's clock rates, temperature, power and throttling are unknown"
    if nvml is None or isinstance(nvml, NoNvml):
        return CpuMonitor(unknown=f"{lacking}: {nvml.reason if nvml else 'NVML was not loaded'}.")
    try:
        return GpuMonitor(device, nvml)
    except nvml.NVMLError as error:
        return CpuMonitor(unknown=f"{lacking}: NVML does not find the GPU ({str(error) or type(error).__name__}).")


def load_nvml() -> Any:
    """NVIDIA's management library ``pynvml``, initialised; or ``NoNvml``."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return NoNvml("NVML's Python package is not installed; run pip install nvidia-ml-py")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return NoNvml(f"NVML does not start ({error}); check the driver with nvidia-smi")
    return nvml


def nvml_handle(device: torch.device, nvml: Any) -> Any:
    """NVML's handle of a torch device, found by UUID, because torch may number the devices differently.

    A MIG instance has a UUID of its own, for which NVML provides little more than memory.

    Raises:
        nvml.NVMLError: if NVML knows neither the GPU nor the MIG instance.
    """
    uuid = torch.cuda.get_device_properties(device).uuid
    with contextlib.suppress(nvml.NVMLError):
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def summarise(readings: Sequence[Reading], cores: int | None = None, unknown: str = "") -> dict[str, Any]:
    """Summarise the readings of one race as JSON values.

    Args:
        readings: at least one; the first was taken before the race.
        cores: number of CPU cores; None takes the operating system's.
        unknown: the monitor's ``unknown``.
    Returns:
        ``clock_mhz``, ``memory_clock_mhz``, ``temperature_c``, ``power_w``: lowest, median and highest, or None;
        ``other_cores_busy``: mean load of other programs, in cores; ``stolen_cores``: the same for steal time;
        ``other_processes``: largest number on the GPU; ``remarks``: sentences on what disturbed the measurement;
        ``notes``: sentences on other conditions.
    """
    first, last = readings[0], readings[-1]
    seconds = last.at_s - first.at_s
    others = stolen = 0.0
    if seconds > 0:
        others = max(0.0, (last.busy_s - first.busy_s) - (last.own_s - first.own_s)) / seconds
        stolen = max(0.0, last.stolen_s - first.stolen_s) / seconds
    on_gpu = max((reading.other_processes for reading in readings if reading.other_processes is not None), default=None)
    remarks = []
    if others > BUSY_CORES:
        remarks.append(
            f"Other programs kept {others:.1f} of {cores or os.cpu_count()} cores busy during the measurement."
        )
    if stolen > BUSY_CORES / 5:
        remarks.append(f"The host of this virtual machine took {stolen:.2f} cores during the measurement (steal time).")
    if on_gpu:
        remarks.append(f"{on_gpu} other process{'es' * (on_gpu > 1)} used the same GPU.")
    rounds = readings[1:]
    at_limit = sum(POWER_LIMIT in reading.throttled for reading in rounds)
    notes = [unknown] if unknown else []
    if at_limit:
        notes.append(f"The GPU was at its power limit after {at_limit} of {len(rounds)} rounds; these rounds are kept.")
    return {
        **{
            name: _range([getattr(reading, name) for reading in readings])
            for name in ("clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
        },
        "other_cores_busy": round(others, 3),
        "stolen_cores": round(stolen, 3),
        "other_processes": on_gpu,
        "remarks": remarks,
        "notes": notes,
    }


def _range(values: Sequence[float | None]) -> list[float] | None:
    known = [float(value) for value in values if value is not None]
    return [min(known), median(known), max(known)] if known else None


def _cpu_clock_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return frequency.current if frequency and frequency.current else None
