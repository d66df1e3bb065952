"""What a network costs: parameters, multiply-accumulates, activations, and the bytes that they occupy and move.

A config is counted in closed form (``hrvit_lab.cost``), without building anything. Any other module is counted by
running it once on the meta device and counting each operator it dispatches; an operator that this file does not know
is an error, never a silent 0.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from hrvit_lab.blocks import use_explicit_attention
from hrvit_lab.config import ConfigError, HRViTConfig, as_size, preset
from hrvit_lab.cost.ledger import Row, ledger
from hrvit_lab.cost.ops import Cost, Totals, dtype_bytes, sum_costs
from hrvit_lab.measure.workload import input_channels
from hrvit_lab.model import HRViT
from hrvit_lab.rivals import TIMM, NetworkConfig, TimmConfig, build_network

aten = torch.ops.aten

MIB = 2**20


GROUPINGS = ("operator", "branch", "stage", "part")
NUMBERS = ("params", "weight_bytes", "macs", "macs_padded", "macs_padding", "activations", "moved_bytes")
"""What a table sums."""


@dataclass(frozen=True)
class Counts:
    """Costs of one forward pass of one image.

    Attributes:
        rows: where each cost stands; the sums below are over them.
        resolution: (height, width) of the input in pixels.
    """

    rows: tuple[Row, ...] = field(repr=False)
    resolution: tuple[int, int]

    def __str__(self) -> str:
        height, width = self.resolution
        return f"{self.params:,} parameters, {self.macs:,} MACs and {self.activations:,} activations, {height}×{width}"

    @cached_property
    def totals(self) -> Totals:
        """The sums over all rows."""
        return sum_costs(row.cost for row in self.rows)

    @property
    def params(self) -> int:
        """Learned parameters; running statistics of BatchNorms are none."""
        return self.totals.params

    @property
    def macs(self) -> int:
        """Exact multiply-accumulates of convolutions, linears and both products of attention. FLOPs are twice that."""
        return self.totals.macs

    @property
    def macs_padded(self) -> int:
        """The same with attention windows padded to full size, as the published release runs them."""
        return self.totals.macs_padded

    @property
    def macs_padding(self) -> int:
        """What padded windows would waste: ``macs_padded - macs``."""
        return self.macs_padded - self.macs

    @property
    def macs_paper(self) -> int:
        """As the paper counts: convolutions, linears and half of the padded attention products."""
        return self.totals.macs_paper

    @property
    def activations(self) -> int:
        """Elements in the outputs of the counted operators; attention's are its scores and its output."""
        return self.totals.activations

    def weight_bytes(self, dtype: str = "float32") -> int:
        """Bytes of parameters and floating-point buffers (running statistics).

        Raises:
            ValueError: for an unknown dtype.
        """
        return self.totals.weight_bytes(dtype)

    def moved_bytes(self, batch_size: int = 1, dtype: str = "float32") -> int:
        """Bytes that a batch must move, a roofline's floor: ``hrvit_lab.cost.ops.Totals.moved_bytes`` defines it.

        Raises:
            ValueError: for an unknown dtype.
        """
        return self.totals.moved_bytes(batch_size, dtype)

    @property
    def weight_mib(self) -> float:
        """Weights in MiB, as float32."""
        return self.weight_bytes() / MIB

    @property
    def moved_mib(self) -> float:
        """Moved bytes of one image in MiB, as float32."""
        return self.moved_bytes() / MIB

    def frame(self, dtype: str = "float32") -> pd.DataFrame:
        """Every row: stage, branch, part, operator, and ``NUMBERS`` (bytes in that dtype, of one image).

        Raises:
            ValueError: for an unknown dtype.
        """
        size = dtype_bytes(dtype)
        records = [
            {
                "stage": row.stage,
                "branch": row.branch,
                "part": row.cost.part,
                "operator": row.cost.operator,
                "params": row.cost.params,
                "weight_bytes": (row.cost.params + row.cost.buffers) * size,
                "macs": row.cost.macs,
                "macs_padded": row.cost.macs_padded,
                "macs_padding": row.cost.macs_padded - row.cost.macs,
                "activations": row.cost.activations,
                "moved_bytes": (row.cost.moved + row.cost.params) * size,
            }
            for row in self.rows
        ]
        return pd.DataFrame(records, columns=["stage", "branch", "part", "operator", *NUMBERS])

    def table(self, by: str, dtype: str = "float32") -> pd.DataFrame:
        """Sums of ``NUMBERS`` by ``"operator"``, ``"branch"``, ``"stage"`` or ``"part"``, in the network's order.

        Operators of which nothing is counted (GELU, upsampling, …) are left out.

        Raises:
            ValueError: for another grouping or an unknown dtype.
        """
        if by not in GROUPINGS:
            raise ValueError(f"by = {by!r} is no grouping; use operator, branch, stage or part")
        sums = self.frame(dtype).groupby(by, sort=False)[list(NUMBERS)].sum()
        return sums[(sums != 0).any(axis=1)].reset_index()


def count(model: nn.Module | NetworkConfig | str, resolution: int | tuple[int, int] = 224) -> Counts:
    """Parameters, MACs and activations of one image.

    Args:
        model: a preset's name, a config or an HRViT, counted in closed form; or any module that takes (1, C, H, W),
            a `TimmConfig` or its name (``timm:resnet18``), counted by running it on the meta device with its attention
            written out.
        resolution: pixels, a side or (height, width).
    Raises:
        ConfigError: for an unknown name, no model, no size, or a resolution that the network does not accept.
        UncountedOperator: if a module dispatches an operator whose cost is unknown.

    >>> f"{count('hrvit_b1', 224).macs / 1e9:.4f} GMACs"
    '2.7756 GMACs'
    """
    size = as_size(resolution)
    if isinstance(model, str):
        model = TimmConfig(model) if model.startswith(TIMM) else preset(model)
    if isinstance(model, HRViTConfig):
        return Counts(ledger(model, size), size)
    if isinstance(model, TimmConfig):
        return _count_timm(model, size)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"count takes a preset's name, a config or a module, not {type(model).__name__}")
    if isinstance(model, HRViT):
        counts = Counts(ledger(model.config, size), size)
        if counts.params == sum(parameter.numel() for parameter in model.parameters()):
            return counts  # else it is no longer what its config says: deployed, or altered by hand
    return dispatch_count(model, size)


@lru_cache(maxsize=256)
def _count_timm(config: TimmConfig, size: tuple[int, int]) -> Counts:
    try:
        with torch.device("meta"):
            model = build_network(config, size)
        return dispatch_count(model, size)
    except UncountedOperator:
        raise
    except Exception as error:  # each model says in its own way that a size is not for it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{config.model} doesn't run at {size[0]}×{size[1]} pixels: {reason}") from error


# -- counting what a module dispatches --------------------------------------------------------------------------------


class UncountedOperator(RuntimeError):
    """An operator ran whose multiply-accumulates nobody defined."""


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
