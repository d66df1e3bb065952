"""What a module takes."""

from torch import nn


def input_channels(model: nn.Module) -> int:
    """Channels that the first convolution reads; 3 without one."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
