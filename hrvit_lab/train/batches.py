"""Division of an epoch's images into steps, and a check whether a network can train on a single image."""

import copy
import math

import torch
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.network.seeding import seeded


def steps_per_epoch(model: nn.Module, image_1CHW: Tensor, num_images: int, batch_size: int) -> int:
    """The smallest number of nearly equal parts of an epoch with at most ``batch_size`` images each.

    If a part would have a single image and the network cannot train on one, there is one part less, and some parts have
    ``batch_size + 1`` images (an odd number of images with ``batch_size`` 2).

    Args:
        image_1CHW: an input of the network; only its shape is used.
    Raises:
        ConfigError: if a larger ``batch_size`` or more images are needed.
    """
    steps = math.ceil(num_images / batch_size)
    if num_images >= 2 * steps or trains_on_one_image(model, image_1CHW):
        return steps
    if batch_size == 1 or num_images == 1:
        size = f"{image_1CHW.shape[-2]}×{image_1CHW.shape[-1]}"
        raise ConfigError(
            f"batch_size = {batch_size} with {num_images} training images gives steps of one image, where a BatchNorm "
            f"of this network has a single value per channel at {size} pixels; use at least 2 images per step"
        )
    return num_images // 2


def trains_on_one_image(model: nn.Module, image_1CHW: Tensor) -> bool:
    """Whether a training step with one image is possible; it is not if a BatchNorm has a single value per channel.

    This runs a copy of the model, so weights, running statistics and random generators are not changed.
    """
    trial = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), seeded(0, image_1CHW.device):
            trial(image_1CHW)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch.nn.functional's message
            raise
        return False
    return True
