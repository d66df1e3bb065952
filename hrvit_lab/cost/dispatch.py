"""Counting what a module dispatches: it runs once on the meta device, every operator is counted or known to be free.

An operator that this file does not know is an error, never a silent 0.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from hrvit_lab.config import ConfigError
from hrvit_lab.cost.count import Counts, UncountedOperator
from hrvit_lab.cost.ledger import Row, ledger
from hrvit_lab.network.baselines import TimmConfig, build_network
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.inputs import input_channels
from hrvit_lab.network.model import HRViT
from hrvit_lab.parts.ops import Cost

aten = torch.ops.aten


@lru_cache(maxsize=256)
def count_timm(config: TimmConfig, size: tuple[int, int]) -> Counts:
    """A model of timm, built on the meta device; see `dispatch_count`."""
    try:
        with torch.device("meta"):
            model = build_network(config, size)
        return dispatch_count(model, size)
    except UncountedOperator:
        raise
    except Exception as error:  # each model says in its own way that a size is not for it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{config.model} doesn't run at {size[0]}×{size[1]} pixels: {reason}") from error


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *_: Any) -> tuple[str, int]:
    transposed = bool(_[4])
    return "convolution", (x if transposed else out).numel() * prod(weight.shape[1:])


def _addmm(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[str, int]:
    return "linear", a.shape[0] * a.shape[1] * b.shape[1]


def _mm(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[str, int]:
    return "linear", a.shape[0] * a.shape[1] * b.shape[1]


def _bmm(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[str, int]:
    return "attention", a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]


def _baddbmm(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[str, int]:
    return _bmm(out, a, b)


COUNTED: dict[Any, Callable[..., tuple[str, int]]] = {
    aten.convolution.default: _convolution,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.bmm.default: _bmm,
    aten.baddbmm.default: _baddbmm,
}
"""Operators with multiply-accumulates: ``(output, *arguments)`` → kind and MACs."""


# fmt: off
FREE_NAMES = (
    "_adaptive_avg_pool2d _local_scalar_dense _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_softmax _to_copy _unsafe_view adaptive_max_pool2d amax amin arange argmax as_strided_ avg_pool2d bernoulli_ "
    "cat clone col2im constant_pad_nd copy_ cumsum detach_ empty empty_like fill_ flip full full_like gather gelu_ "
    "hardswish hardswish_ im2col index index_select lift_fresh linalg_vector_norm linspace masked_fill_ max "
    "max_pool2d_with_indices mean meshgrid native_batch_norm native_dropout native_group_norm native_layer_norm "
    "new_empty new_ones new_zeros ones ones_like pixel_shuffle pixel_unshuffle reflection_pad2d repeat resize_ roll "
    "scalar_tensor stack sum topk unsafe_split upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var "
    "var_mean zeros zeros_like"
)


# fmt: on
FREE = frozenset(getattr(aten, name) for name in FREE_NAMES.split())
"""Operators without multiply-accumulates in this convention, beside views and pointwise ones."""


def count_module(model: object, size: tuple[int, int]) -> Counts:
    """An HRViT by its config, as long as it is what that says; any other module by running it.

    Raises:
        ConfigError: if it is no module.
        UncountedOperator: if it dispatches an operator whose cost is unknown.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"count takes a preset's name, a config or a module, not {type(model).__name__}")
    if isinstance(model, HRViT):
        counts = Counts(ledger(model.config, size), size)
        if counts.params == sum(parameter.numel() for parameter in model.parameters()):
            return counts  # else it is no longer what its config says: deployed, or altered by hand
    return dispatch_count(model, size)


class OperatorCounter(TorchDispatchMode):
    """Counts what runs inside it: ``rows[(module, operator)]``, and every operator in ``calls``.

    A row is ``[macs, activations, inputs, outputs]``, as ``Cost`` defines them.

    Raises:
        UncountedOperator: at an operator that is neither counted nor known to be free.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        """``weights`` are no inputs, nor are views of them."""
        super().__init__()
        self.rows: dict[tuple[str, str], list[int]] = {}
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self._scores_shape: torch.Size | None = None
        self.calls: Counter[str] = Counter()
        self._tracker = ModuleTracker()

    def __enter__(self) -> "OperatorCounter":
        self._tracker.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._tracker.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        decomposed = func.decompose(*args, **(kwargs or {})) if func not in COUNTED else NotImplemented
        if decomposed is not NotImplemented:
            return decomposed
        out = func(*args, **(kwargs or {}))
        self.calls[str(func)] += 1
        if func in COUNTED:
            operator, macs = COUNTED[func](out, *args)
            operands = args[:1] if operator == "convolution" else args[-2:]
            if operator == "attention" and not all(map(self._is_map, operands)):
                operator = "linear"
            # A product added onto a full-size operand continues that output; it makes no new activation.
            continued = func is aten.addmm.default and args[0].shape == out.shape
            entry = self.rows.setdefault((self._module(), operator), [0, 0, 0, 0])
            entry[0] += macs
            entry[1] += 0 if continued else out.numel()
            entry[2] += sum(x.numel() for x in operands if self._is_map(x))
            entry[3] += 0 if continued else out.numel()
            if operator == "attention" and operands[0].shape == self._scores_shape:
                # Scores, written by the product before and read by this one: a fused kernel keeps them to itself.
                entry[2] -= operands[0].numel()
                entry[3] -= operands[0].numel()
                self._scores_shape = None
            elif operator == "attention":
                self._scores_shape = out.shape
        elif not _is_free(func):
            raise UncountedOperator(
                f"operator {func} has no known cost; add it to COUNTED or FREE in {__name__.replace('.', '/')}.py"
            )
        return out

    def _is_map(self, x: Tensor) -> bool:
        return x.untyped_storage()._cdata not in self._weights

    def _module(self) -> str:
        """Deepest module running, without the root's name."""
        deepest = max(self._tracker.parents - {"Global"}, key=lambda name: name.count("."), default="")
        return deepest.partition(".")[2]


def _is_free(func: Any) -> bool:
    return func.overloadpacket in FREE or func.is_view or torch.Tag.pointwise in func.tags


def dispatch_count(model: nn.Module, resolution: tuple[int, int]) -> Counts:
    """Count a module by running it once on the meta device, on a copy, in evaluation mode.

    The rows' ``part`` is the name of the module that ran, their ``stage`` its first component.
    """
    meta = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    with torch.no_grad(), use_explicit_attention(meta), OperatorCounter(meta.parameters()) as counter:
        meta(torch.empty(1, input_channels(meta), *resolution, device="meta"))
    return Counts(tuple(_rows(meta, counter.rows.items())), resolution)


def _rows(model: nn.Module, counted: Iterable[tuple[tuple[str, str], list[int]]]) -> Iterable[Row]:
    for (module, operator), (macs, activations, inputs, outputs) in counted:
        yield Row(module.partition(".")[0], 0, Cost(module, operator, 0, 0, macs, macs, activations, inputs, outputs))
    for name, child in model.named_children():
        yield Row(name, 0, Cost(name, "parameters", _numel(child.parameters()), _numel(child.buffers())))
    own, buffers = _numel(model.parameters(recurse=False)), _numel(model.buffers(recurse=False))
    if own or buffers:
        yield Row("model", 0, Cost("model", "parameters", own, buffers))


def _numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
