"""What the machine was doing meanwhile: clocks, heat, power, throttling, and who else was there.

A watch is looked at between rounds, never inside a timed call. What cannot be read is None, not 0.
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
"""Cores that other programs may keep busy without a word."""


@dataclass(frozen=True)
class Look:
    """One look at a device. Seconds count from an arbitrary start: only differences mean something.

    Attributes:
        clock_mhz: of the cores (mean over them) or of the GPU's multiprocessors.
        memory_clock_mhz: of the GPU's memory.
        temperature_c: of the GPU.
        power_w: drawn by the GPU at the moment.
        throttled: what has forced the device to slow down since the last look.
        at_s: when.
        busy_s: processor seconds that all programs together have used on all cores.
        own_s: those of this process and its threads.
        stolen_s: processor seconds that a virtual machine's host has kept for others.
        other_processes: further programs that compute on the GPU.
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


class Watch(Protocol):
    """Something that can be looked at."""

    def look(self) -> Look:
        """The state now."""


class CpuWatch:
    """Watches the processor; throttling is what the kernel counts per core (bare-metal Linux on Intel)."""

    def __init__(self, counters: Sequence[Path] | None = None) -> None:
        """``counters``: files that hold the number of throttling events so far; None finds the kernel's."""
        root = Path("/sys/devices/system/cpu")
        kernels = root.glob("cpu*/thermal_throttle/core_throttle_count")
        self._counters = sorted(kernels) if counters is None else counters
        self._events = self._throttle_events()
        self._process = psutil.Process()

    def look(self) -> Look:
        """The state now; throttled if a core's counter has moved since the last look."""
        before, self._events = self._events, self._throttle_events()
        total = psutil.cpu_times()
        own = self._process.cpu_times()
        idle = total.idle + getattr(total, "iowait", 0.0)
        stolen = getattr(total, "steal", 0.0)
        # Guests' time is in user's already.
        busy = sum(total) - idle - stolen - getattr(total, "guest", 0.0) - getattr(total, "guest_nice", 0.0)
        return Look(
            clock_mhz=_cpu_clock_mhz(),
            throttled=("heat",) if self._events > before else (),
            at_s=time.monotonic(),
            busy_s=busy,
            own_s=own.user + own.system,
            stolen_s=stolen,
        )

    def _throttle_events(self) -> int:
        return sum(int(path.read_text()) for path in self._counters)


class GpuWatch:
    """Watches an NVIDIA GPU through NVML, and the processor that feeds it."""

    def __init__(self, device: torch.device, nvml: Any) -> None:
        """``nvml``: the module ``pynvml``, initialised."""
        self._nvml = nvml
        self._handle = nvml_handle(device, nvml)
        self._cpu = CpuWatch()
        # NVML's names for what forces clocks down; a cap that somebody set, and idling, are none of them.
        self._reasons = {
            nvml.nvmlClocksThrottleReasonSwPowerCap: "power limit",
            nvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
            nvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat",
            nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, hardware",
            nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
        }

    def look(self) -> Look:
        """The state now; throttled if one of NVML's reasons holds at this moment."""
        nvml, handle = self._nvml, self._handle
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        processes = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        host = self._cpu.look()
        return Look(
            clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1e3,
            throttled=tuple(name for bit, name in self._reasons.items() if reasons & bit),
            at_s=host.at_s,
            busy_s=host.busy_s,
            own_s=host.own_s,
            stolen_s=host.stolen_s,
            # In a container NVML may know this process by another number, or not list it at all.
            other_processes=None if processes is None else max(0, len(processes) - 1),
        )

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """NVML's answer, None where the device or the driver has none."""
        with contextlib.suppress(self._nvml.NVMLError):
            return question(*arguments)
        return None


def watch(device: torch.device, nvml: Any = None) -> Watch:
    """What to look at for a device; a GPU's feeder alone where NVML is missing or does not know the GPU."""
    if device.type == "cuda" and nvml is not None:
        with contextlib.suppress(nvml.NVMLError):
            return GpuWatch(device, nvml)
    return CpuWatch()


def load_nvml() -> Any:
    """NVIDIA's management library, initialised; None where the package or a driver is missing."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def nvml_handle(device: torch.device, nvml: Any) -> Any:
    """NVML's handle of a torch device: by its identity, for torch may number and hide devices differently."""
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def summarise(looks: Sequence[Look], cores: int | None = None) -> dict[str, Any]:
    """Looks of one race as JSON knows them, the first from before it.

    Args:
        looks: at least one.
        cores: of the processor; None asks the operating system.
    Returns:
        ``clock_mhz``, ``memory_clock_mhz``, ``temperature_c``, ``power_w``: lowest, median and highest, or None;
        ``other_cores_busy``: cores that other programs used on average; ``stolen_cores``: cores that the host took;
        ``other_processes``: at most, on the GPU; ``remarks``: sentences on what disturbs a measurement.
    """
    first, last = looks[0], looks[-1]
    seconds = last.at_s - first.at_s
    others = stolen = 0.0
    if seconds > 0:
        others = max(0.0, (last.busy_s - first.busy_s) - (last.own_s - first.own_s)) / seconds
        stolen = max(0.0, last.stolen_s - first.stolen_s) / seconds
    on_gpu = max((look.other_processes for look in looks if look.other_processes is not None), default=None)
    remarks = []
    if others > BUSY_CORES:
        remarks.append(f"Other programs kept {others:.1f} of {cores or os.cpu_count()} cores busy meanwhile.")
    if stolen > BUSY_CORES / 5:
        remarks.append(f"The virtual machine's host withheld {stolen:.2f} cores meanwhile.")
    if on_gpu:
        remarks.append(f"{on_gpu} other process{'es' * (on_gpu > 1)} computed on the same GPU.")
    return {
        **{
            name: _range([getattr(look, name) for look in looks])
            for name in ("clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
        },
        "other_cores_busy": round(others, 3),
        "stolen_cores": round(stolen, 3),
        "other_processes": on_gpu,
        "remarks": remarks,
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
