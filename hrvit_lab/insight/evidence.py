"""Class evidence: where in the image a class is seen, by gradients (Grad-CAM) and by occlusion.

Sources: arXiv 1610.02391 (Grad-CAM); arXiv 1311.2901, section 4.2 (occlusion).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.hooks import evaluating
from hrvit_lab.insight.places import check_image
from hrvit_lab.network.model import HRViT

BATCH = 16
"""Occluded images that are run at once."""


def class_scores(model: nn.Module, images_BCHW: Tensor) -> Tensor:
    """The logits of every class, (B, classes); of a segmenter, their mean over the image.

    Raises:
        ConfigError: if the network has no classifier.
    """
    return _scores(model, model(images_BCHW))


def _scores(model: nn.Module, logits: Any) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 4) or not getattr(model, "num_classes", 1):
        raise ConfigError(f"{type(model).__name__} has no classifier, so there is no class to look for")
    return logits.mean((2, 3)) if logits.ndim == 4 else logits


def predicted_class(model: nn.Module, image_1CHW: Tensor) -> tuple[int, float]:
    """The class with the largest score, and its probability (softmax).

    Raises:
        ConfigError: if the network has no classifier.
    """
    check_image(image_1CHW)
    with evaluating(model), torch.no_grad():
        probability, number = class_scores(model, image_1CHW)[0].softmax(0).max(0)
    return int(number), float(probability)


def gradient_evidence(model: nn.Module, image_1CHW: Tensor, class_number: int) -> dict[str, NDArray[Any]]:
    """Grad-CAM on the last map of every branch: channels weighted by the mean derivative of the class's score.

    Returns:
        By branch, (H, W) at the size of the image, at least 0; zero where nothing speaks for the class.
    Raises:
        ConfigError: if the network is not an HRViT with a classifier, or does not have the class.
    """
    image = check_image(image_1CHW)
    if not isinstance(model, HRViT):
        raise ConfigError(
            f"{type(model).__name__}: gradient-weighted evidence needs the branches of an HRViT; use occlusion, which "
            "works with any classifier"
        )
    with evaluating(model), torch.enable_grad():
        maps = [x_BCHW.detach().requires_grad_(True) for x_BCHW in _features(model, image_1CHW)]
        scores = _scores(model, model.forward_head(maps))[0]
        check_class(class_number, len(scores))
        gradients = torch.autograd.grad(scores[class_number], maps, materialize_grads=True)
    found = {}
    for branch, (x_1CHW, gradient_1CHW) in enumerate(zip(maps, gradients, strict=True)):
        weights_1C11 = gradient_1CHW.mean((2, 3), keepdim=True)
        evidence_11HW = (weights_1C11 * x_1CHW).sum(1, keepdim=True).relu().detach()
        large = F.interpolate(evidence_11HW, size=image, mode="bilinear", align_corners=False)
        found[f"branch {branch}"] = large[0, 0].float().cpu().numpy()
    return found


def _features(model: HRViT, image_1CHW: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model.forward_features(image_1CHW)


@torch.no_grad()
def occlusion_evidence(model: nn.Module, image_1CHW: Tensor, class_number: int, patch_px: int) -> NDArray[Any]:
    """How much the class's score drops when a square of the image is set to zero (the mean colour).

    The squares do not overlap; those at the right and bottom may be smaller.

    Args:
        patch_px: side of the squares.
    Returns:
        The drop of the logit, (H, W); negative where the square spoke against the class.
    Raises:
        ConfigError: if the network has no classifier, or does not have the class.
    """
    height, width = check_image(image_1CHW)
    if patch_px < 1:
        raise ConfigError(f"patch_px = {patch_px} is invalid; use at least 1")
    drops = np.zeros((height, width))
    corners = [(top, left) for top in range(0, height, patch_px) for left in range(0, width, patch_px)]
    with evaluating(model):
        whole = class_scores(model, image_1CHW)[0]
        check_class(class_number, len(whole))
        for first in range(0, len(corners), BATCH):
            some = corners[first : first + BATCH]
            occluded_BCHW = image_1CHW.repeat(len(some), 1, 1, 1)
            for x_CHW, (top, left) in zip(occluded_BCHW, some, strict=True):
                x_CHW[:, top : top + patch_px, left : left + patch_px] = 0
            scores_B = class_scores(model, occluded_BCHW)[:, class_number]
            for (top, left), score in zip(some, scores_B.tolist(), strict=True):
                drops[top : top + patch_px, left : left + patch_px] = float(whole[class_number]) - score
    return drops


def class_label(class_names: Sequence[str], number: int) -> str:
    """A class in words.

    >>> class_label(("coat", "bag"), 1), class_label((), 1)
    ('bag (class 1)', 'class 1')
    """
    return f"{class_names[number]} (class {number})" if number < len(class_names) else f"class {number}"


def check_class(number: int, classes: int) -> None:
    """Check that a network of so many classes has this one.

    Raises:
        ConfigError: otherwise.
    """
    if not 0 <= number < classes:
        raise ConfigError(f"class {number} does not exist; the network has classes 0 to {classes - 1}")
