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

POWER_LIMIT = "power limit"
"""What a look says while a GPU's power cap holds its clock down."""


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

    @property
    def unknown(self) -> str:
        """One sentence on what the looks lack, and why; empty if nothing."""

    def look(self) -> Look:
        """The state now."""


class CpuWatch:
    """Watches the processor; throttling is what the kernel counts per core (bare-metal Linux on Intel)."""

    def __init__(self, counters: Sequence[Path] | None = None, unknown: str = "") -> None:
        """``counters``: files that hold the number of throttling events so far; None finds the kernel's."""
        self.unknown = unknown
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
        self._refused: dict[str, str] = {}
        # NVML's names for what forces clocks down; a cap that somebody set, and idling, are none of them.
        self._reasons = {
            nvml.nvmlClocksThrottleReasonSwPowerCap: POWER_LIMIT,
            nvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
            nvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat",
            nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, hardware",
            nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
        }

    def look(self) -> Look:
        """The state now; throttled if one of NVML's reasons holds at this moment."""
        nvml, handle = self._nvml, self._handle
        reasons = self._ask("throttling", nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        milliwatts = self._ask("power", nvml.nvmlDeviceGetPowerUsage, handle)
        processes = self._ask("other processes", nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        host = self._cpu.look()
        return Look(
            clock_mhz=self._ask("clock", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("memory clock", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("temperature", nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1e3,
            throttled=tuple(name for bit, name in self._reasons.items() if reasons & bit),
            at_s=host.at_s,
            busy_s=host.busy_s,
            own_s=host.own_s,
            stolen_s=host.stolen_s,
            # In a container NVML may know this process by another number, or not list it at all.
            other_processes=None if processes is None else max(0, len(processes) - 1),
        )

    @property
    def unknown(self) -> str:
        """What NVML refused to tell so far, and in which words."""
        if not self._refused:
            return ""
        errors = ", ".join(dict.fromkeys(self._refused.values()))
        return f"NVML does not tell this GPU's {', '.join(self._refused)}: {errors}."

    def _ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """NVML's answer, None where the device or the driver has none."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            self._refused[what] = str(error) or type(error).__name__
            return None


@dataclass(frozen=True)
class NoNvml:
    """Stands for NVML where there is none.

    Attributes:
        reason: why, and what to do, in words.
    """

    reason: str


def watch(device: torch.device, nvml: Any = None) -> Watch:
    """What to look at for a device.

    Args:
        nvml: ``load_nvml()``. Without it, and where it does not know the GPU, only the processor that feeds the GPU is
            looked at, and ``unknown`` says why.
    """
    if device.type != "cuda":
        return CpuWatch()
    lacking = "The GPU's clocks, temperature, power and throttling are not known"
    if nvml is None or isinstance(nvml, NoNvml):
        return CpuWatch(unknown=f"{lacking}: {nvml.reason if nvml else 'NVML was not asked'}.")
    try:
        return GpuWatch(device, nvml)
    except nvml.NVMLError as error:
        return CpuWatch(unknown=f"{lacking}: NVML does not find it ({str(error) or type(error).__name__}).")


def load_nvml() -> Any:
    """NVIDIA's management library ``pynvml``, initialised; or ``NoNvml``."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return NoNvml("run pip install nvidia-ml-py for them")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return NoNvml(f"NVML does not start ({error}); check the driver with nvidia-smi")
    return nvml


def nvml_handle(device: torch.device, nvml: Any) -> Any:
    """NVML's handle of a torch device: by its identity, for torch may number and hide devices differently.

    A part of a GPU (a MIG instance) has an identity of its own, under which NVML tells its memory and little else.

    Raises:
        nvml.NVMLError: if NVML knows neither.
    """
    uuid = torch.cuda.get_device_properties(device).uuid
    with contextlib.suppress(nvml.NVMLError):
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def summarise(looks: Sequence[Look], cores: int | None = None, unknown: str = "") -> dict[str, Any]:
    """Looks of one race as JSON knows them, the first from before it.

    Args:
        looks: at least one.
        cores: of the processor; None asks the operating system.
        unknown: the watch's.
    Returns:
        ``clock_mhz``, ``memory_clock_mhz``, ``temperature_c``, ``power_w``: lowest, median and highest, or None;
        ``other_cores_busy``: cores that other programs used on average; ``stolen_cores``: cores that the host took;
        ``other_processes``: at most, on the GPU; ``remarks``: sentences on what disturbs a measurement; ``notes``:
        sentences on what else must be known of it.
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
    rounds = looks[1:]
    at_limit = sum(POWER_LIMIT in look.throttled for look in rounds)
    notes = [unknown] if unknown else []
    if at_limit:
        notes.append(
            f"The GPU was at its power limit after {at_limit} of {len(rounds)} rounds: a condition of this "
            "measurement, for which no round was dropped."
        )
    return {
        **{
            name: _range([getattr(look, name) for look in looks])
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
