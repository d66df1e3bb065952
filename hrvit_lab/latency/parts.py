"""Latency by part: stage × branch × part, each timed alone at its shapes in the network, and compared with the whole.

Timing inside hooks would include the hooks, and would synchronize a GPU after each part. Instead, hooks record the
arguments and outputs of each part once, untimed. Then all parts are called in the order of the network, once per round,
each with newly written inputs and with weights that are as cold in the cache as in the network. The rest of a block
(its residual additions) is timed by running the block with placeholders that return the recorded outputs of its parts.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from hrvit_lab.config.plan import plan
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.compare import CONTROL, Budget, Rounds, paired_ratio
from hrvit_lab.latency.engine import run_rounds
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.timing import (
    Clock,
    Sample,
    Stopwatch,
    cpu_stopwatch,
    cuda_stopwatch,
    primed,
)
from hrvit_lab.latency.units import LABELS
from hrvit_lab.latency.workload import Workload, prepare, timed_inference
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.places import Place, places

WHOLE, SUM, REFERENCE = "whole", "sum of parts", "reference"


class PartKey(NamedTuple):
    """Key of a row of the table: ``stage`` is a number, ``"stem"`` or ``"head"``; ``branch`` is None for parts that
    belong to no single branch."""

    stage: int | str
    branch: int | None
    part: str


@dataclass(frozen=True)
class PartTimes:
    """Latency of all parts of one network.

    Attributes:
        frame: one row per part in the network's order: stage, branch, part, calls (per forward pass), and latency_ms,
            latency_ms_p10 and latency_ms_p90 of all its calls together.
        whole_ms: median latency of the whole network in the same rounds.
        sum_ms: median over rounds of the sum over parts.
        ratio: sum divided by whole, paired by round.
        control: whole divided by whole, paired by round: the error of the method.
        reference_ms: median latency of the reference in the same rounds; None without one.
        rounds: number of kept rounds.
        conditions: clock rates, temperature, power, load and remarks during the measurement.
    """

    frame: pd.DataFrame
    whole_ms: float
    sum_ms: float
    ratio: Estimate
    control: Estimate
    reference_ms: float | None
    rounds: int
    conditions: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"PartTimes({len(self.frame)} parts; sum {self.sum_ms:.4g} ms, whole {self.whole_ms:.4g} ms, "
            f"{self.rounds} rounds)"
        )


class Spec(NamedTuple):
    """Shape, stride, dtype and device of a tensor."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def empty(self) -> Tensor:
        """An uninitialized tensor of this kind."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Recorded:
    """One call of a part: its arguments and output, with a ``Spec`` in place of every tensor."""

    place: PartKey
    module: nn.Module
    args: Any
    output: Any
    children: tuple["Recorded", ...] = ()


class Placeholder(nn.Module):
    """Returns ``output`` for any input."""

    output: Any = None

    def forward(self, *_: Any) -> Any:
        return self.output


def measure_parts(
    model: nn.Module,
    resolution: tuple[int, int] = (224, 224),
    *,
    batch_size: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    memory_format: str = "contiguous",
    threads: int | None = None,
    budget: Budget | None = None,
    reference: Workload | None = None,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    nvml: Any = None,
    on_round: Callable[[int, float], object] = lambda rounds, half_width: None,
) -> PartTimes:
    """Time every part of an HRViT in eval and inference mode; ``model`` is not changed.

    Wall time on the CPU, device time on a GPU. Arguments are those of ``measure_latency``.

    Args:
        budget: stopping rule for the ratios to the whole; None: at least 10 rounds, one minute.
        reference: runs once in every round, to tell how fast the device was.
    Raises:
        ConfigError: if the model is not an HRViT, or for an unknown setting.
        OutOfDeviceMemory: if it does not fit into memory.
    """
    if not isinstance(model, HRViT):
        raise ConfigError(f"measure_parts supports HRViTs only, not {type(model).__name__}; use measure_latency for it")
    load = prepare(
        model, resolution, batch_size=batch_size, device=device, dtype=dtype, memory_format=memory_format, seed=seed
    )

    def stopwatch(run: Callable[[], object]) -> Stopwatch:
        return device_stopwatch(run, load.device, clock)

    with timed_inference(load.name, threads):
        parts = record(cast(HRViT, load.model), load.images_BCHW)
        timed = [(place, timed_call(stopwatch)) for place, timed_call in _timed_calls(parts)]
        passes: list[list[float]] = []

        def one_pass() -> Sample:
            passes.append([measure() for _, measure in timed])
            return Sample(sum(passes[-1]))

        one_pass()
        passes.clear()
        stopwatches = {WHOLE: workload_stopwatch(load, clock), SUM: one_pass}
        if reference is not None:
            stopwatches[REFERENCE] = workload_stopwatch(reference, clock)
        rounds, conditions = run_rounds(
            stopwatches, budget or Budget(min_rounds=10), load.device,
            seed=seed, clock=clock, nvml=nvml, on_round=on_round,
        )  # fmt: skip
    if rounds.stopped == "interrupted":
        raise KeyboardInterrupt
    return _part_times([place for place, _ in timed], [passes[index] for index in rounds.kept], rounds, conditions)


def device_stopwatch(run: Callable[[], object], device: torch.device, clock: Clock) -> Stopwatch:
    """A call's wall time on the CPU, its device time on a GPU."""
    if device.type == "cpu":
        return cpu_stopwatch(run, clock)
    on_device = cuda_stopwatch(run, clock, device)
    return lambda: Sample(on_device().device_ms or 0.0)


def workload_stopwatch(load: Workload, clock: Clock) -> Stopwatch:
    """The same for a network's forward pass, after an untimed one that fills the caches."""

    def run() -> object:
        return load.model(load.images_BCHW)

    return primed(run, device_stopwatch(run, load.device, clock))


def _part_times(
    places: list[PartKey], passes: list[list[float]], rounds: Rounds, conditions: dict[str, Any]
) -> PartTimes:
    calls = pd.DataFrame([place._asdict() for place in places])
    calls["branch"] = calls["branch"].astype("Int64")
    keys = list(PartKey._fields)
    times = pd.DataFrame(passes).T  # one row a call, one column a round
    summed = times.groupby([calls[key] for key in keys], sort=False, dropna=False).sum()
    frame = calls.groupby(keys, sort=False, dropna=False).size().rename("calls").reset_index()
    for column, q in (("latency_ms", 0.5), ("latency_ms_p10", 0.1), ("latency_ms_p90", 0.9)):
        frame[column] = summed.quantile(q, axis=1).to_numpy()
    wholes, sums = rounds.wall_ms(WHOLE), rounds.wall_ms(SUM)
    control = paired_ratio(rounds.wall_ms(CONTROL), wholes)
    beside = median(rounds.wall_ms(REFERENCE)) if REFERENCE in rounds.samples else None
    return PartTimes(
        frame, median(wholes), median(sums), paired_ratio(sums, wholes), control, beside, len(passes), conditions
    )


def record(model: HRViT, images_BCHW: Tensor) -> list[Recorded]:
    """Record the call of every part in one forward pass, in order; the parts of a block are its children."""
    calls: list[Recorded] = []
    hooks: list[RemovableHandle] = []

    def listen(place: Place, into: list[Recorded]) -> None:
        module = model.get_submodule(place.name)
        branch = None if isinstance(place.stage, str) else place.branch
        where = PartKey(place.stage, branch, LABELS.get(place.part.kind, place.part.kind))
        given: list[Any] = []
        children: list[Recorded] = []

        def before(_: nn.Module, args: Any) -> None:
            given.append(_specs(args))

        def after(_: nn.Module, args: Any, output: Any) -> None:
            into.append(Recorded(where, module, given.pop(), _specs(output), tuple(children)))

        hooks.extend([module.register_forward_pre_hook(before), module.register_forward_hook(after)])
        for inner in place.inside:
            listen(inner, children)

    for place in places(plan(model.config)):
        listen(place, calls)
    try:
        model(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


TimedCall = Callable[[Callable[[Callable[[], object]], Stopwatch]], Callable[[], float]]
"""Takes a factory of stopwatches; returns a function that calls a part once and returns its time in milliseconds."""


def _timed_calls(parts: list[Recorded]) -> Iterator[tuple[PartKey, TimedCall]]:
    """The calls to time, in the network's order: the parts of a block, then the block with placeholders for them."""
    sources: dict[Spec, Tensor] = {}
    for call in parts:
        for child in call.children:
            yield child.place, _timed_call(child, child.module, (), sources)
        module, placeholders = _with_placeholders(call)
        yield call.place, _timed_call(call, module, placeholders, sources)


def _timed_call(
    call: Recorded, module: nn.Module, placeholders: tuple[tuple[Placeholder, Any], ...], sources: dict[Spec, Tensor]
) -> TimedCall:
    """The timed call of a module with the recorded arguments and placeholders; inputs are written before the timing."""

    def make(stopwatch: Callable[[Callable[[], object]], Stopwatch]) -> Callable[[], float]:
        args: Any = None

        def run() -> object:
            return module(*args)

        timed = stopwatch(run)

        def measure() -> float:
            nonlocal args
            args = _new_tensors(call.args, sources)
            for placeholder, output in placeholders:
                placeholder.output = _new_tensors(output, sources)
            sample = timed()
            args = None
            for placeholder, _ in placeholders:
                placeholder.output = None
            return sample.wall_ms

        return measure

    return make


def _with_placeholders(call: Recorded) -> tuple[nn.Module, tuple[tuple[Placeholder, Any], ...]]:
    """A copy of the module with placeholders for its recorded children, and the placeholders with their outputs; the
    module itself if it has no recorded children."""
    if not call.children:
        return call.module, ()
    placeholders = {child.module: (Placeholder(), child.output) for child in call.children}
    module = copy.copy(call.module)  # shares everything except the table of its children
    module._modules = {
        name: placeholders[child][0] if child in placeholders else child for name, child in call.module._modules.items()
    }
    return module, tuple(placeholders.values())


def _specs(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda x: Spec(x.shape, x.stride(), x.dtype, x.device), tree)


def _new_tensors(tree: Any, sources: dict[Spec, Tensor]) -> Any:
    """New tensors of noise with the recorded shapes and layouts, so that inputs are in the cache as in the network."""

    def write(spec: Spec) -> Tensor:
        if spec not in sources:
            sources[spec] = spec.empty().normal_()
        return spec.empty().copy_(sources[spec])

    if isinstance(tree, Spec):
        return write(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(_new_tensors(item, sources) for item in tree)
    return tree
