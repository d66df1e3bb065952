"""Energy of a call: a GPU's own meter over seconds of back-to-back calls, less what the GPU draws when idle."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hrvit_lab.latency.conditions import NoNvml, nvml_handle
from hrvit_lab.latency.timing import Clock

Meter = Callable[[], float]
"""Joules since an arbitrary start."""


@dataclass(frozen=True)
class Energy:
    """Energy of one call (a whole batch).

    Attributes:
        gross_j: everything that the device drew, by calls.
        net_j: that, less idle power times the duration.
        idle_w: power of the waiting device.
        calls, seconds: what the meter was read over.
    """

    gross_j: float
    net_j: float
    idle_w: float
    calls: int
    seconds: float


def idle_power(meter: Meter, *, seconds: float, clock: Clock, sleep: Callable[[float], object] = time.sleep) -> float:
    """Watts that the device draws while nothing is asked of it."""
    joules, began = meter(), clock()
    sleep(seconds)
    return (meter() - joules) / (clock() - began)


def energy_per_call(
    run: Callable[[], object], wait: Callable[[], object], meter: Meter, *, idle_w: float, seconds: float, clock: Clock
) -> Energy:
    """Call back to back for ``seconds`` and read the meter before and after.

    Args:
        run: starts one call.
        wait: returns when all that was started is done.
        meter: updated by the device some ten times a second, hence windows of seconds.
        idle_w: from ``idle_power``.
    """
    wait()
    joules, began, calls = meter(), clock(), 0
    while clock() - began < seconds:
        for _ in range(10):  # wait not after each: the device must not run dry
            run()
        wait()
        calls += 10
    took = clock() - began
    gross = meter() - joules
    return Energy(gross / calls, (gross - idle_w * took) / calls, idle_w, calls, took)


def nvml_meter(device: torch.device, nvml: Any) -> Meter | None:
    """A GPU's energy counter in joules; None without NVML, and where the GPU has none (before Volta; MIG instances)."""
    if nvml is None or isinstance(nvml, NoNvml):
        return None
    try:
        handle = nvml_handle(device, nvml)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
