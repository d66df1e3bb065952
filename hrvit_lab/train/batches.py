"""How an epoch's images are dealt to its steps, and whether a network trains on a single one."""

import copy
import math

import torch
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.network.seeding import seeded


def steps_per_epoch(model: nn.Module, image_1CHW: Tensor, num_images: int, batch_size: int) -> int:
    """Into how many parts of nearly equal size an epoch is split: as few as ``batch_size`` allows.

    If a part would have a single image and the network cannot train on one, the epoch has fewer parts: then some have
    ``batch_size + 1`` images (an odd number of images at ``batch_size`` 2).

    Args:
        image_1CHW: an input as the network reads it; only its shape matters.
    Raises:
        ConfigError: if that takes a larger ``batch_size``, or more images.
    """
    steps = math.ceil(num_images / batch_size)
    if num_images >= 2 * steps or trains_on_one_image(model, image_1CHW):
        return steps
    if batch_size == 1 or num_images == 1:
        size = f"{image_1CHW.shape[-2]}×{image_1CHW.shape[-1]}"
        raise ConfigError(
            f"batch_size = {batch_size} with {num_images} training images: for a single image of {size} pixels a "
            "BatchNorm of this network has one value per channel, which it cannot normalise; train on at least 2 "
            "images per step"
        )
    return num_images // 2


def trains_on_one_image(model: nn.Module, image_1CHW: Tensor) -> bool:
    """Whether a training step of one image runs; not if a BatchNorm then has a single value per channel.

    A copy of the model tries it: weights, running statistics and random numbers stay as they are.
    """
    trial = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), seeded(0, image_1CHW.device):
            trial(image_1CHW)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # as torch.nn.functional says it
            raise
        return False
    return True
