"""Latency by part: stage × branch × part, each timed on its own at its real shapes, and their sum beside the whole.

Hooks would time themselves, and force a GPU to wait after each part. Here they run once, untimed, to see what each
part is given and returns. Then all parts are called in the network's order, round after round, and each finds its
input freshly written and its weights as cold as in the network. What a block does beside its parts (the residual
sums) is timed by running the block with stand-ins that return what the parts returned.
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
from hrvit_lab.latency.compare import Budget, Estimate, Rounds, paired_ratio
from hrvit_lab.latency.engine import watched
from hrvit_lab.latency.timing import (
    Clock,
    Sample,
    Stopwatch,
    cpu_stopwatch,
    cuda_stopwatch,
    garbage_collector_paused,
    intra_op_threads,
    primed,
)
from hrvit_lab.latency.workload import ieee_float32, memory_errors_named, prepare
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.places import Place, places

RESIDUAL = "residual"
"""What a block does itself."""

LABELS = {"block": RESIDUAL, "patch_embed": "patch embedding"}
"""What the table calls a part, where that is not its kind."""

WHOLE, SUM = "whole", "sum of parts"


class Where(NamedTuple):
    """A row of the table: ``stage`` is a number, ``"stem"`` or ``"head"``; ``branch`` None: of none alone."""

    stage: int | str
    branch: int | None
    part: str


@dataclass(frozen=True)
class PartTimes:
    """Latency of all parts of one network.

    Attributes:
        frame: one row a part in the network's order: stage, branch, part, calls (how many there are of it) and
            latency_ms with latency_ms_p10 and latency_ms_p90, all its calls together.
        whole_ms: median of the whole network in the same rounds.
        sum_ms: median over rounds of the sum over parts.
        ratio: sum by whole, paired by round.
        rounds: how many count.
        conditions: clocks, heat, power, load and remarks, meanwhile.
    """

    frame: pd.DataFrame
    whole_ms: float
    sum_ms: float
    ratio: Estimate
    rounds: int
    conditions: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"PartTimes({len(self.frame)} parts; sum {self.sum_ms:.4g} ms, whole {self.whole_ms:.4g} ms, "
            f"{self.rounds} rounds)"
        )


class Spec(NamedTuple):
    """What a tensor looked like."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def empty(self) -> Tensor:
        """A tensor like it."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Recorded:
    """One call of a part: its arguments and output, with a ``Spec`` in place of every tensor."""

    place: Where
    module: nn.Module
    args: Any
    output: Any
    children: tuple["Recorded", ...] = ()


class StandIn(nn.Module):
    """Returns what it was told to."""

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
    seed: int = 0,
    clock: Clock = time.perf_counter,
    nvml: Any = None,
    on_round: Callable[[int, float], object] = lambda rounds, half_width: None,
) -> PartTimes:
    """Time every part of an HRViT in eval and inference mode; ``model`` is left as it is.

    Wall time on the CPU, device time on a GPU. Arguments are those of ``measure_latency``; the budget is for the ratio
    of sum and whole (None: at least 10 rounds, one minute).

    Raises:
        ConfigError: if the model is no HRViT, or for a setting that does not exist.
        OutOfDeviceMemory: if it does not fit.
    """
    if not isinstance(model, HRViT):
        raise ConfigError(f"parts are known of HRViTs only, not of {type(model).__name__}")
    load = prepare(
        model, resolution, batch_size=batch_size, device=device, dtype=dtype, memory_format=memory_format, seed=seed
    )

    def stopwatch(run: Callable[[], object]) -> Stopwatch:
        if load.device.type == "cpu":
            return cpu_stopwatch(run, clock)
        on_device = cuda_stopwatch(run, clock, load.device)
        return lambda: Sample(on_device().device_ms or 0.0)

    with (
        memory_errors_named(load.name),
        intra_op_threads(threads),
        ieee_float32(),
        torch.inference_mode(),
        garbage_collector_paused(),
    ):
        parts = record(cast(HRViT, load.model), load.images_BCHW)
        turns = [(place, turn(stopwatch)) for place, turn in _turns(parts)]
        passes: list[list[float]] = []

        def one_pass() -> Sample:
            passes.append([measure() for _, measure in turns])
            return Sample(sum(passes[-1]))

        one_pass()
        passes.clear()
        rounds, conditions = watched(
            {WHOLE: primed(whole := lambda: load.model(load.images_BCHW), stopwatch(whole)), SUM: one_pass},
            budget or Budget(min_rounds=10), load.device, seed=seed, clock=clock, nvml=nvml, on_round=on_round,
        )  # fmt: skip
    if rounds.stopped == "interrupted":
        raise KeyboardInterrupt
    return _part_times([place for place, _ in turns], [passes[index] for index in rounds.kept], rounds, conditions)


def _part_times(
    places: list[Where], passes: list[list[float]], rounds: Rounds, conditions: dict[str, Any]
) -> PartTimes:
    calls = pd.DataFrame([place._asdict() for place in places])
    calls["branch"] = calls["branch"].astype("Int64")
    keys = list(Where._fields)
    times = pd.DataFrame(passes).T  # one row a call, one column a round
    summed = times.groupby([calls[key] for key in keys], sort=False, dropna=False).sum()
    frame = calls.groupby(keys, sort=False, dropna=False).size().rename("calls").reset_index()
    for column, q in (("latency_ms", 0.5), ("latency_ms_p10", 0.1), ("latency_ms_p90", 0.9)):
        frame[column] = summed.quantile(q, axis=1).to_numpy()
    wholes, sums = rounds.wall_ms(WHOLE), rounds.wall_ms(SUM)
    return PartTimes(frame, median(wholes), median(sums), paired_ratio(sums, wholes), len(passes), conditions)


def record(model: HRViT, images_BCHW: Tensor) -> list[Recorded]:
    """Every part's call in one forward pass, in order; a block's parts are its children."""
    calls: list[Recorded] = []
    hooks: list[RemovableHandle] = []

    def listen(place: Place, into: list[Recorded]) -> None:
        module = model.get_submodule(place.name)
        branch = None if isinstance(place.stage, str) else place.branch
        where = Where(place.stage, branch, LABELS.get(place.part.kind, place.part.kind))
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


Turn = Callable[[Callable[[Callable[[], object]], Stopwatch]], Callable[[], float]]
"""Given what makes stopwatches, what makes one call of a part and says how many milliseconds it took."""


def _turns(parts: list[Recorded]) -> Iterator[tuple[Where, Turn]]:
    """What to call, in the network's order: a block's parts, then the block around stand-ins for them."""
    sources: dict[Spec, Tensor] = {}
    for call in parts:
        for child in call.children:
            yield child.place, _turn(child, child.module, (), sources)
        hollow, stand_ins = _hollow(call)
        yield call.place, _turn(call, hollow, stand_ins, sources)


def _turn(
    call: Recorded, module: nn.Module, stand_ins: tuple[tuple[StandIn, Any], ...], sources: dict[Spec, Tensor]
) -> Turn:
    def make(stopwatch: Callable[[Callable[[], object]], Stopwatch]) -> Callable[[], float]:
        args: Any = None

        def run() -> object:
            return module(*args)

        timed = stopwatch(run)

        def measure() -> float:
            nonlocal args
            args = _fresh(call.args, sources)
            for stand_in, output in stand_ins:
                stand_in.output = _fresh(output, sources)
            sample = timed()
            args = None
            for stand_in, _ in stand_ins:
                stand_in.output = None
            return sample.wall_ms

        return measure

    return make


def _hollow(call: Recorded) -> tuple[nn.Module, tuple[tuple[StandIn, Any], ...]]:
    """The module around stand-ins for its recorded children (itself, if it has none), and what these return."""
    if not call.children:
        return call.module, ()
    stand_ins = {child.module: (StandIn(), child.output) for child in call.children}
    hollow = copy.copy(call.module)  # shares all but the table of its children
    hollow._modules = {
        name: stand_ins[child][0] if child in stand_ins else child for name, child in call.module._modules.items()
    }
    return hollow, tuple(stand_ins.values())


def _specs(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda x: Spec(x.shape, x.stride(), x.dtype, x.device), tree)


def _fresh(tree: Any, sources: dict[Spec, Tensor]) -> Any:
    """Noise of the recorded shapes and layouts, written just now, as the part before would have."""

    def write(spec: Spec) -> Tensor:
        if spec not in sources:
            sources[spec] = spec.empty().normal_()
        return spec.empty().copy_(sources[spec])

    if isinstance(tree, Spec):
        return write(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(_fresh(item, sources) for item in tree)
    return tree
