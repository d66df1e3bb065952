"""Prepare an entry for timing: build it, compare it with the reference, warm it up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.latency.backends import BACKENDS, Prepared, Refused
from hrvit_lab.latency.engine import Warm, warmed
from hrvit_lab.latency.gate import Finding, check, reference_gradients, reference_output, step_gradients, training_step
from hrvit_lab.latency.measurement import Entry, Setting, Status
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.latency.steps import Steps
from hrvit_lab.latency.timing import Clock, garbage_collector_paused
from hrvit_lab.latency.workload import (
    OutOfDeviceMemory,
    Workload,
    device_name,
    input_channels,
    memory_errors_named,
    noise,
    prepare,
)


@dataclass(frozen=True)
class Ready:
    """An entry that is ready to be timed."""

    entry: Entry
    warm: Warm
    finding: Finding
    compile_seconds: float | None
    peak_memory_mib: float | None


class NotTimed(Exception):
    """Raised for an entry that cannot be timed, with the status and reason of its measurement."""

    def __init__(self, status: Status, reason: str, finding: Finding | None = None) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason
        self.finding = finding


def steps_of(entry: Entry, max_warmup_seconds: float) -> dict[str, float]:
    """The steps of ``make_ready``, with the upper bound of each in seconds."""
    warm_up = 2 * max_warmup_seconds  # each timed call follows an untimed one
    return {f"{entry.name}: numerics": BACKENDS[entry.backend].seconds, f"{entry.name}: warming up": warm_up}


def make_ready(
    entry: Entry,
    setting: Setting,
    device: torch.device,
    references: dict[int, list[Tensor]],
    seed: int,
    max_warmup_seconds: float,
    clock: Clock,
    steps: Steps,
) -> Ready:
    """Build an entry, check its numerics and warm it up; reports the steps of ``steps_of``.

    Raises:
        NotTimed: if one of these fails.
    """
    preparing, warming = steps_of(entry, max_warmup_seconds)
    backend = BACKENDS[entry.backend]
    if refusal := backend.refusal(setting.device, entry.dtype, setting.training):
        raise NotTimed("refused", refusal)
    if setting.training and entry.model.module is not entry.model.plain:
        raise NotTimed("refused", "the deployed form supports inference only; use the plain model for training steps")
    try:
        steps.at(preparing, f"{entry.name}: numerics of the reference")
        reference = _reference(entry.model.plain, setting, device, references, seed)
        peak = None
        if entry.backend == "eager":
            steps.at(preparing, f"{entry.name}: peak memory")
            peak = measure_peak_memory(
                entry.model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
                dtype=entry.dtype, memory_format=setting.memory_format, training=setting.training,
            )  # fmt: skip
        load = prepare(
            entry.model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
            dtype=entry.dtype, memory_format=setting.memory_format, seed=seed,
        )  # fmt: skip
        with memory_errors_named(load.name), torch.inference_mode(not setting.training):
            steps.at(preparing, f"{entry.name}: {'compiling' if entry.backend != 'eager' else 'numerics'}")
            prepared = backend.prepare(load)
            output = _judged_output(load, prepared, setting.training)
            finding = check(output, reference, backend.arithmetic or entry.dtype)
            if not finding.passed:
                raise NotTimed("wrong", _wrong(finding, setting.training), finding)
            call, seconds = _callable(load, prepared, setting.training, clock)
            steps.at(warming)
            with garbage_collector_paused():
                warm = warmed(call, device, clock=clock, max_seconds=max_warmup_seconds)
    except NotTimed:
        raise
    except Refused as refused:
        raise NotTimed("refused", str(refused)) from None
    except OutOfDeviceMemory as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise NotTimed("out of memory", str(error)) from None
    except Exception as error:  # an error of a compiler or an engine is the result of this entry only
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise NotTimed("failed", f"{type(error).__name__}: {first_line[:200]}") from error
    return Ready(entry, warm, finding, seconds, peak)


def _reference(
    plain: nn.Module, setting: Setting, device: torch.device, known: dict[int, list[Tensor]], seed: int
) -> list[Tensor]:
    """Outputs (in training: gradients) of the plain network, eager, in float32; computed once per network."""
    if id(plain) not in known:
        name = f"float32 reference, batch {setting.batch_size} on {device_name(device)}"
        with memory_errors_named(name):
            images_BCHW = noise(setting.batch_size, input_channels(plain), *setting.resolution, seed).to(device)
            reference = reference_gradients if setting.training else reference_output
            known[id(plain)] = reference(plain, images_BCHW)
    return known[id(plain)]


def _judged_output(load: Workload, prepared: Prepared, training: bool) -> Any:
    """The tensors for the numerics gate: outputs, or the gradients of a step in eval mode, which is deterministic."""
    if not training:
        return prepared.run()
    training_step(load.model, prepared.run)
    return step_gradients(load.model)


def _wrong(finding: Finding, training: bool) -> str:
    what = "gradients" if training else "outputs"
    return (
        f"not timed, because the relative error of its {what} is {finding.relative_error:.2g}, above the tolerance of "
        f"{finding.tolerance:g} (compared with eager float32)"
    )


def _callable(
    load: Workload, prepared: Prepared, training: bool, clock: Clock
) -> tuple[Callable[[], Any], float | None]:
    """The function to time, and the seconds spent on compiling, including the first training step."""
    if not training:
        return prepared.run, prepared.compile_seconds
    load.model.train()

    def step() -> None:
        training_step(load.model, prepared.run)

    if prepared.compile_seconds is None:
        return step, None
    began = clock()
    step()
    return step, prepared.compile_seconds + clock() - began
