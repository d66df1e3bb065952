"""Convert a deployed network for one CPU: weights in oneDNN's packed layout for one input size, fused activations."""

import copy

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.packed import PackedConv, PackedLinear


def pack(served: nn.Module, images_BCHW: Tensor) -> nn.Module:
    """A copy of a deployed network for inference on a CPU, with the same inputs and, up to rounding, the same outputs.

    Modules with a method ``packed(shape)`` are replaced by its result, and all other convolutions and linears that run
    by packed ones.

    Args:
        served: a network returned by ``deploy``, on the CPU, in float32 or bfloat16.
        images_BCHW: (B, 3, H, W), of the size and dtype of later inputs. Other sizes give correct results, but may be
            slower.
    Returns:
        The copy, which can be called, copied and saved as a whole (``copy.deepcopy``, ``torch.save``); what is loaded
        is packed again, for the processor that loads it. Its ``state_dict`` has the unpacked weights, for a network
        that is packed from an equal config; for another size or number format, pack ``served`` again. It has no
        gradients. To convert, move, export, compile or
        count the network, use ``served``; to time the copy, use the back end ``packed``.
    Raises:
        ValueError: if ``refusal`` returns a reason.
    """
    if reason := refusal(images_BCHW.dtype):
        raise ValueError(reason)
    packed = copy.deepcopy(served).eval()
    _pack_inside(packed, _input_shapes(packed, images_BCHW))
    return packed


def refusal(dtype: torch.dtype) -> str | None:
    """The reason why weights of this number format cannot be packed here, or None."""
    if not torch.backends.mkldnn.is_available():
        return "packed weights need oneDNN, which this build of torch lacks; use the deployed network"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"packed weights do not support {str(dtype).removeprefix('torch.')}; use float32 or bfloat16"
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "packed weights in bfloat16 need a processor with AVX-512; use float32"
    return None


def _input_shapes(network: nn.Module, images_BCHW: Tensor) -> dict[nn.Module, torch.Size]:
    """The shape of the first input tensor of each module."""
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


def _pack_inside(part: nn.Module, shapes: dict[nn.Module, torch.Size]) -> None:
    for name, child in part.named_children():
        shape = shapes.get(child)
        if shape is not None and hasattr(child, "packed"):
            setattr(part, name, child.packed(shape))  # type: ignore[operator]
        elif shape is not None and isinstance(child, nn.Conv2d):
            setattr(part, name, PackedConv(child, shape))
        elif shape is not None and isinstance(child, nn.Linear):
            setattr(part, name, PackedLinear(child.weight, child.bias, shape))
        else:
            _pack_inside(child, shapes)
