"""Count a module by one forward pass on the meta device; every dispatched operator is counted, or listed as free.

An operator that is not in ``hrvit_lab.cost.operators`` is an error; it is never counted as 0.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from hrvit_lab.config import ConfigError
from hrvit_lab.cost.count import Counts, UncountedOperator
from hrvit_lab.cost.ledger import Row
from hrvit_lab.cost.operators import COUNTED, FREE, ONTO, attention_macs
from hrvit_lab.network.baselines import TimmConfig, build_network
from hrvit_lab.network.inputs import input_channels
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.structure import is_as_built
from hrvit_lab.parts.ops import Cost


@lru_cache(maxsize=256)
def count_timm(config: TimmConfig, size: tuple[int, int]) -> Counts:
    """Count a model of timm, built on the meta device; see `dispatch_count`."""
    with _one_sentence(config.model, size), torch.device("meta"):
        model = build_network(config, size)
    with _one_sentence(config.model, size):
        return dispatch_count(model, size, config.in_chans)


def count_module(model: object, size: tuple[int, int]) -> Counts:
    """Count an unmodified HRViT by its config, and any other module by one forward pass.

    Raises:
        ConfigError: if ``model`` is not a module, or does not run at that size.
        UncountedOperator: if it dispatches an operator with an unknown cost.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"count got {type(model).__name__}; give the name of a preset, a config or a module")
    if isinstance(model, HRViT) and is_as_built(model):
        return Counts.of_config(model.config, size)
    with _one_sentence(type(model).__name__, size):
        return dispatch_count(model, size)


@contextmanager
def _one_sentence(name: str, size: tuple[int, int]) -> Iterator[None]:
    """Turn any error of a model at a size, or on the meta device, into a ConfigError of one sentence."""
    try:
        yield
    except (UncountedOperator, ConfigError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{name} does not run at {size[0]}×{size[1]} pixels: {reason}; use a resolution that the model accepts"
        ) from error


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that run in its context: ``rows[(module, operator)]``, and calls by operator in ``calls``.

    A row is ``[macs, activations, inputs, outputs]``, as ``Cost`` defines them.

    Raises:
        UncountedOperator: at an operator that is neither in ``COUNTED`` nor free.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        """``weights`` and views of them do not count as inputs."""
        super().__init__()
        self.rows: dict[tuple[str, str], list[int]] = {}
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self._scores_shape: torch.Size | None = None
        self.calls: Counter[str] = Counter()
        self._tracker = ModuleTracker()
        self._attention = _WholeAttention(self)
        self._paused = False

    def __enter__(self) -> "OperatorCounter":
        self._tracker.__enter__()
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)
        self._tracker.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        decomposed = func.decompose(*args, **(kwargs or {})) if func not in COUNTED else NotImplemented
        if decomposed is not NotImplemented:
            return decomposed
        out = func(*args, **(kwargs or {}))
        if self._paused:
            return out
        self.calls[str(func)] += 1
        if func in COUNTED:
            operator, macs, reads = COUNTED[func]
            operands = [x for x in args if isinstance(x, Tensor)][reads]
            if operator == "attention" and not all(map(self._is_map, operands)):
                operator = "linear"
            # A product that is accumulated into an existing map adds no activations.
            accumulated = func in ONTO and args[0].shape == out.shape
            activations = outputs = 0 if accumulated else out.numel()
            inputs = self._maps(operands)
            if operator == "attention" and operands[0].shape == self._scores_shape:
                # The operand is the scores, the output of the previous product. A fused kernel does not move them.
                inputs -= operands[0].numel()
                outputs -= operands[0].numel()
                self._scores_shape = None
            elif operator == "attention":
                self._scores_shape = out.shape
            self._add(operator, macs(out, *args), activations, inputs, outputs)
        elif not _is_free(func):
            raise UncountedOperator(
                f"the cost of operator {func} is unknown; add it to COUNTED or FREE in hrvit_lab/cost/operators.py"
            )
        return out

    def run_attention(self, attend: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run ``scaled_dot_product_attention`` and count both products; the scores are not moved."""
        self._paused = True
        try:
            out = attend(*args, **kwargs)
        finally:
            self._paused = False
        query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        scores = prod(query.shape[:-1]) * key.shape[-2]
        inputs = self._maps((query, key, value))
        self._add("attention", attention_macs(query, key, value), scores + out.numel(), inputs, out.numel())
        return out

    def _add(self, operator: str, *costs: int) -> None:
        entry = self.rows.setdefault((self._module(), operator), [0, 0, 0, 0])
        entry[:] = map(sum, zip(entry, costs, strict=True))

    def _maps(self, operands: Iterable[Tensor]) -> int:
        """Elements of the operands that are not weights."""
        return sum(x.numel() for x in operands if self._is_map(x))

    def _is_map(self, x: Tensor) -> bool:
        return x.untyped_storage()._cdata not in self._weights

    def _module(self) -> str:
        """Name of the deepest running module, without the root."""
        deepest = max(self._tracker.parents - {"Global"}, key=lambda name: name.count("."), default="")
        return deepest.partition(".")[2]


class _WholeAttention(TorchFunctionMode):
    """Passes ``scaled_dot_product_attention`` to the counter before a back end decomposes it into operators."""

    def __init__(self, counter: OperatorCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._counter.run_attention(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_free(func: Any) -> bool:
    return func.overloadpacket in FREE or func.is_view or torch.Tag.pointwise in func.tags


def dispatch_count(model: nn.Module, resolution: tuple[int, int], in_chans: int | None = None) -> Counts:
    """Count a module by one forward pass of a copy on the meta device, in evaluation mode.

    The input is (1, in_chans, H, W). By default ``in_chans`` is the number of input channels of the first convolution.
    In the rows, ``part`` is the name of the module that ran, and ``stage`` the first component of that name.
    """
    meta = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    return count_run(meta, torch.empty(1, in_chans or input_channels(meta), *resolution, device="meta"))


def count_run(model: nn.Module, image: Tensor) -> Counts:
    """Count what one forward pass of this (1, C, H, W) image dispatches, on its device; see `dispatch_count`."""
    with torch.no_grad(), no_fast_path(), OperatorCounter(model.parameters()) as counter:
        model(image)
    return Counts.of_rows(tuple(_rows(model, counter.rows.items())), (image.shape[-2], image.shape[-1]))


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Disable the fast path of ``nn.TransformerEncoder`` and ``nn.MultiheadAttention``, which hides their operators."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _rows(model: nn.Module, counted: Iterable[tuple[tuple[str, str], list[int]]]) -> Iterable[Row]:
    for (module, operator), (macs, activations, inputs, outputs) in counted:
        yield Row(module.partition(".")[0], 0, Cost(module, operator, 0, 0, macs, macs, activations, inputs, outputs))
    counted_before: set[Tensor] = set()  # a weight that several parts share is counted with the first
    for name, child in (*model.named_children(), ("model", model)):
        params, buffers = (
            _numel(tensor for tensor in tensors if tensor not in counted_before)
            for tensors in (child.parameters(), child.buffers())
        )
        counted_before.update(child.parameters(), child.buffers())
        if name != "model" or params or buffers:
            yield Row(name, 0, Cost(name, "parameters", params, buffers))


def _numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
