"""Operators of torch: which ones have multiply-accumulates and how many, and which ones have none."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    transposed = bool(_[4])
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def _product(out: Tensor, *operands: Any) -> int:
    """MACs of a matrix or vector product ``a[…, n, k] @ b``: the last two operands; a first one is added to it."""
    a, _ = operands[-2:]
    return out.numel() * a.shape[-1]


def _summed_product(out: Tensor, onto: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    """``addbmm``: the sum of a batch of products."""
    return a.shape[0] * _product(out, a, b)


def _row_products(out: Tensor, a: Tensor, *_: Any) -> int:
    """One product for each element of a row of ``a``, for each output element: distances, coordinates of a grid."""
    return out.numel() * a.shape[-1]


def _bilinear(out: Tensor, a: Tensor, weight: Tensor, b: Tensor, *_: Any) -> int:
    """``nn.Bilinear``: each output is a sum over all pairs of elements of the two inputs."""
    return out.numel() * prod(weight.shape[-2:])


def attention_macs(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    """MACs of both products of attention: n queries × m keys × (d + d_v), for each query head of each image.

    Masked and causal attention are counted in full, n × m, since the share that a kernel skips depends on the kernel.
    In grouped attention, query heads that share a key and a value are counted one by one.
    """
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


class Counted(NamedTuple):
    """An operator with multiply-accumulates.

    Attributes:
        kind: ``"convolution"``, ``"linear"`` or ``"attention"`` (a product of two feature maps). A product with a
            weight counts as linear.
        macs: ``(output, *arguments)`` → number of MACs.
        reads: which of its tensor arguments are inputs; a summand of the product is not.
    """

    kind: str
    macs: Callable[..., int]
    reads: slice = slice(-2, None)


ONTO = (aten.addmm.default, aten.addmm_.default)
"""Products to which their first argument is added."""

COUNTED = {
    aten.convolution.default: Counted("convolution", _convolution, slice(0, 1)),
    **dict.fromkeys((aten.mm.default, aten._int_mm.default, *ONTO), Counted("linear", _product)),
    **dict.fromkeys(
        (
            aten.mv.default, aten.addmv.default, aten.addmv_.default, aten.dot.default, aten.vdot.default,
            aten.bmm.default, aten.baddbmm.default, aten.baddbmm_.default,
        ),
        Counted("attention", _product),
    ),
    **dict.fromkeys((aten.addbmm.default, aten.addbmm_.default), Counted("attention", _summed_product)),
    **dict.fromkeys((aten._euclidean_dist.default, aten._cdist_forward.default), Counted("attention", _row_products)),
    aten._trilinear.default: Counted("linear", _bilinear, slice(0, 3)),
    aten.affine_grid_generator.default: Counted("linear", _row_products, slice(0, 1)),
}  # fmt: skip
"""Operators with multiply-accumulates. ``scaled_dot_product_attention`` is counted before it is decomposed."""


# fmt: off
FREE_NAMES = (
    # creation
    "arange bernoulli empty empty_like empty_permuted empty_strided exponential_ eye fill full full_like lift_fresh "
    "linspace logspace new_empty new_empty_strided new_full new_ones new_zeros normal ones ones_like rand rand_like "
    "randint randint_like randn randn_like randperm scalar_tensor tril_indices triu_indices uniform zero zeros "
    "zeros_like "
    # copies and indexing
    "_index_put_impl _local_scalar_dense _to_copy _unsafe_index _unsafe_view as_strided_ cat clone col2im "
    "constant_pad_nd copy detach_ diag_embed diagonal_scatter embedding flip gather im2col index index_add index_copy "
    "index_fill index_put index_select masked_fill masked_scatter masked_select meshgrid nonzero pixel_shuffle "
    "pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d "
    "replication_pad2d replication_pad3d resize roll rot90 scatter scatter_add scatter_reduce select_scatter set_ "
    "slice_scatter split squeeze_ stack t_ take transpose_ tril triu unsafe_split unsafe_split_with_sizes unsqueeze_ "
    # reductions
    "_embedding_bag _unique2 all amax amin aminmax any argmax argmin bincount bucketize count_nonzero cummax cummin "
    "cumprod cumsum histc kthvalue linalg_vector_norm logcumsumexp logsumexp max mean median min mode multinomial "
    "nansum norm prod searchsorted sort std std_mean sum topk trace unique_consecutive unique_dim var var_mean "
    # normalization, activation and dropout
    "_fused_rms_norm _log_softmax _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_prelu_kernel _safe_softmax _softmax _weight_norm_interface gelu_ glu hardswish hardswish_ log_sigmoid_forward "
    "native_batch_norm native_dropout native_group_norm native_layer_norm renorm rrelu_with_noise "
    # resizing and pooling
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_max_pool2d "
    "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d fractional_max_pool2d grid_sampler_2d grid_sampler_3d "
    "max_pool2d_with_indices max_pool3d_with_indices max_unpool2d upsample_bicubic2d upsample_bilinear2d "
    "upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d "
)
# fmt: on
FREE = frozenset(
    getattr(aten, name + ending) for name in FREE_NAMES.split() for ending in ("", "_") if hasattr(aten, name + ending)
)
"""Operators without multiply-accumulates in this convention, in addition to views and pointwise operators."""
