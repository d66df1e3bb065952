"""The network as it is served on one CPU: weights laid out for inputs of one size, activations in the same pass."""

import copy

import torch
from torch import Tensor, nn

from hrvit_lab.blocks.packed import PackedConv, PackedLinear


def pack(served: nn.Module, images_BCHW: Tensor) -> nn.Module:
    """A copy of a deployed network for inference on a CPU: same inputs and outputs, to rounding.

    A part that has a ``packed(shape)`` form for inputs of a shape takes it; so does every other convolution and linear.

    Args:
        served: what ``deploy`` returned, on the CPU, in float32 or bfloat16.
        images_BCHW: (B, 3, H, W), of the size that it will be called with. Others are right, and may take longer.
    Returns:
        The copy. It knows no gradient; to save, convert, move, export or compile, take ``served``.
    """
    packed = copy.deepcopy(served)
    _pack_inside(packed, _input_shapes(packed, images_BCHW))
    return packed


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
