"""From an entry to a call that may be timed: built, compared with the reference, warmed up."""

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
    """A competitor on the starting line."""

    entry: Entry
    warm: Warm
    finding: Finding
    compile_seconds: float | None
    peak_memory_mib: float | None


class Stopped(Exception):
    """A competitor that does not reach the starting line."""

    def __init__(self, status: Status, reason: str, finding: Finding | None = None) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason
        self.finding = finding


def steps_of(entry: Entry, max_warmup_seconds: float) -> dict[str, float]:
    """The steps of ``make_ready``, with their seconds at most."""
    warm_up = 2 * max_warmup_seconds  # before each timed call is an untimed one
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
    """Build, pass the gate, warm up; ``Stopped`` if any of that fails. Its steps are those of ``steps_of``."""
    preparing, warming = steps_of(entry, max_warmup_seconds)
    backend = BACKENDS[entry.backend]
    if refusal := backend.refusal(setting.device, entry.dtype, setting.training):
        raise Stopped("refused", refusal)
    if setting.training and entry.model.module is not entry.model.plain:
        raise Stopped("refused", "the deployed form is for inference; time the plain model's training step")
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
            finding = check(_judged_output(load, prepared, setting.training), reference, entry.dtype)
            if not finding.passed:
                raise Stopped("wrong", _wrong(finding, setting.training), finding)
            call, seconds = _callable(load, prepared, setting.training, clock)
            steps.at(warming)
            with garbage_collector_paused():
                warm = warmed(call, device, clock=clock, max_seconds=max_warmup_seconds)
    except Stopped:
        raise
    except Refused as refused:
        raise Stopped("refused", str(refused)) from None
    except OutOfDeviceMemory as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise Stopped("out of memory", str(error)) from None
    except Exception as error:  # whatever a compiler or an engine raises is its result, and no other row's
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise Stopped("failed", f"{type(error).__name__}: {first_line[:200]}") from error
    return Ready(entry, warm, finding, seconds, peak)


def _reference(
    plain: nn.Module, setting: Setting, device: torch.device, known: dict[int, list[Tensor]], seed: int
) -> list[Tensor]:
    """Outputs (in training: gradients) of the plain network, eager, in float32; computed once a network."""
    if id(plain) not in known:
        name = f"float32 reference, batch {setting.batch_size} on {device_name(device)}"
        with memory_errors_named(name):
            images_BCHW = noise(setting.batch_size, input_channels(plain), *setting.resolution, seed).to(device)
            reference = reference_gradients if setting.training else reference_output
            known[id(plain)] = reference(plain, images_BCHW)
    return known[id(plain)]


def _judged_output(load: Workload, prepared: Prepared, training: bool) -> Any:
    """What the gate looks at: outputs; or the gradients of a step in eval mode, where nothing is left to chance."""
    if not training:
        return prepared.run()
    training_step(load.model, prepared.run)
    return step_gradients(load.model)


def _wrong(finding: Finding, training: bool) -> str:
    what = "gradients are" if training else "output is"
    return (
        f"its {what} off by {finding.relative_error:.2g} of eager float32's norm, more than {finding.tolerance:g}: "
        "wrong, so not timed"
    )


def _callable(
    load: Workload, prepared: Prepared, training: bool, clock: Clock
) -> tuple[Callable[[], Any], float | None]:
    """What is timed, and the seconds spent on compiling, those of the first training step included."""
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
