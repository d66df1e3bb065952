"""Energy of a call: the GPU's energy counter over seconds of back-to-back calls, minus the energy of the idle GPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hrvit_lab.latency.conditions import NoNvml, nvml_handle
from hrvit_lab.latency.timing import Clock

Meter = Callable[[], float]
"""Returns joules since an arbitrary start."""


@dataclass(frozen=True)
class Energy:
    """Energy of one call (a whole batch).

    Attributes:
        gross_j: total energy divided by the number of calls, in joules.
        net_j: the same, minus idle power times duration.
        idle_w: power of the idle device, in watts.
        calls, seconds: number of calls and duration between both readings of the counter.
    """

    gross_j: float
    net_j: float
    idle_w: float
    calls: int
    seconds: float


def idle_power(meter: Meter, *, seconds: float, clock: Clock, sleep: Callable[[float], object] = time.sleep) -> float:
    """Power of the idle device in watts."""
    joules, began = meter(), clock()
    sleep(seconds)
    return (meter() - joules) / (clock() - began)


def energy_per_call(
    run: Callable[[], object], wait: Callable[[], object], meter: Meter, *, idle_w: float, seconds: float, clock: Clock
) -> Energy:
    """Call back to back for ``seconds`` and read the meter before and after.

    Args:
        run: starts one call.
        wait: returns when all started calls have finished.
        meter: the device updates it about ten times a second, so ``seconds`` should be several.
        idle_w: from ``idle_power``.
    """
    wait()
    joules, began, calls = meter(), clock(), 0
    while clock() - began < seconds:
        for _ in range(10):  # no wait after each call, so that the device is always busy
            run()
        wait()
        calls += 10
    took = clock() - began
    gross = meter() - joules
    return Energy(gross / calls, (gross - idle_w * took) / calls, idle_w, calls, took)


def nvml_meter(device: torch.device, nvml: Any) -> Meter | None:
    """A GPU's energy counter in joules; None without NVML and for GPUs without a counter (before Volta; MIG
    instances)."""
    if nvml is None or isinstance(nvml, NoNvml):
        return None
    try:
        handle = nvml_handle(device, nvml)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
