"""The network as it is served on one CPU: weights laid out for inputs of one size, activations in the same pass."""

import copy

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attention import ServedAttention
from hrvit_lab.network.blocks.packed import PackedConv, PackedLinear


def pack(served: nn.Module, images_BCHW: Tensor) -> nn.Module:
    """A copy of a deployed network for inference on a CPU: same inputs and outputs, to rounding.

    A part that has a ``packed(shape)`` form for inputs of a shape takes it; so does every other convolution and linear
    that runs, but for the linears of attention, which gain nothing.

    Args:
        served: what ``deploy`` returned, on the CPU, in float32 or bfloat16.
        images_BCHW: (B, 3, H, W), of the size and dtype that it will be called with. Other sizes are right, and may
            take longer.
    Returns:
        The copy, to be called and nothing else: it knows no gradient; to copy, save, convert, move, export, compile or
        count, take ``served``, and to time it the back end ``packed``.
    Raises:
        ValueError: where ``refusal`` has a reason.
    """
    if reason := refusal(images_BCHW.dtype):
        raise ValueError(reason)
    packed = copy.deepcopy(served).eval()
    _pack_inside(packed, _input_shapes(packed, images_BCHW), linears=True)
    return packed


def refusal(dtype: torch.dtype) -> str | None:
    """Why weights of this number format cannot be packed here, or None."""
    if not torch.backends.mkldnn.is_available():
        return "packed weights need oneDNN, which this build of torch lacks; use the deployed network"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"packed weights do not support {str(dtype).removeprefix('torch.')}; use float32 or bfloat16"
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "packed weights in bfloat16 need a processor with AVX-512; use float32"
    return None


def _input_shapes(network: nn.Module, images_BCHW: Tensor) -> dict[nn.Module, torch.Size]:
    """The shape of the first tensor that each part is called with."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(part: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            shapes.setdefault(part, args[0].shape)

    hooks = [part.register_forward_pre_hook(note) for part in network.modules()]
    try:
        with torch.no_grad():
            network(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _pack_inside(part: nn.Module, shapes: dict[nn.Module, torch.Size], *, linears: bool) -> None:
    for name, child in part.named_children():
        shape = shapes.get(child)
        if shape is not None and hasattr(child, "packed"):
            setattr(part, name, child.packed(shape))  # type: ignore[operator]
        elif shape is not None and isinstance(child, nn.Conv2d):
            setattr(part, name, PackedConv(child, shape))
        elif shape is not None and isinstance(child, nn.Linear) and linears:
            setattr(part, name, PackedLinear(child.weight, child.bias, shape))
        else:
            _pack_inside(child, shapes, linears=linears and not isinstance(child, ServedAttention))
