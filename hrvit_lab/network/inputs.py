"""Input channels of a module."""

from torch import nn


def input_channels(model: nn.Module) -> int:
    """Input channels of the first convolution; 3 if there is none."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
