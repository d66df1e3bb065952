"""Feature maps of any network, and their principal components as colours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.heads import Size
from hrvit_lab.insight.hooks import capture, evaluating
from hrvit_lab.network.blocks.tokens import to_image
from hrvit_lab.network.model import HRViT

CLIPPED_PERCENT = 1
"""Share of the positions at each end that are drawn as black or full colour."""


def feature_maps(model: nn.Module, image_BCHW: Tensor, *, gradients: bool = False) -> dict[str, Tensor]:
    """The maps of a network by name, (B, C, h, w) each, in the order of execution.

    Of an HRViT: every branch of every stage (``"stage 2, branch 1"``). Of a model of timm: the maps of
    ``forward_intermediates``. Of any other network: its output.

    Raises:
        ConfigError: if the network has no maps.
    """
    if isinstance(model, HRViT):
        stages = [f"stages.{stage}" for stage in range(len(model.stages))]
        seen = capture(model, image_BCHW, outputs=stages, gradients=gradients).outputs
        pyramid = model.config.topology == "pyramid"
        return {
            f"stage {stage}, branch {branch}": to_image(x_BHWC)
            for stage, name in enumerate(stages)
            for branch, x_BHWC in enumerate(seen[name])
            if not pyramid or branch == stage
        }
    with evaluating(model), torch.set_grad_enabled(gradients):
        if hasattr(model, "forward_intermediates"):
            maps = model.forward_intermediates(image_BCHW, intermediates_only=True, output_fmt="NCHW")  # type: ignore[operator]
            names = [str(info["module"]) for info in getattr(model, "feature_info", [])]
            if len(names) != len(maps):
                names = [f"map {number}" for number in range(len(maps))]
            return dict(zip(names, maps, strict=True))
        output = model(image_BCHW)
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ConfigError(
            f"{type(model).__name__} has no feature maps: it is neither an HRViT nor a model of timm with "
            "forward_intermediates; give one of these"
        )
    return {"output": output}


def map_strides(model: nn.Module, maps: Mapping[str, Tensor], image: Size) -> dict[str, Size]:
    """Pixels of the image for each token of the maps of `feature_maps`, down and right.

    Known of an HRViT and of timm's models; of another network, the image's sides divided by the map's, rounded up.
    """
    if isinstance(model, HRViT):
        sides = {name: model.config.strides[int(name.rpartition(" ")[2])] for name in maps}
    else:
        known = {str(info["module"]): info.get("reduction") for info in getattr(model, "feature_info", [])}
        sides = {name: int(known[name]) for name in maps if known.get(name)}
    return {
        name: (sides[name], sides[name]) if name in sides else (-(-image[0] // x.shape[2]), -(-image[1] // x.shape[3]))
        for name, x in maps.items()
    }


def last_maps(model: nn.Module, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that the head reads: the last map of every branch; of other networks, the last map of every size."""
    if isinstance(model, HRViT):
        by_branch = {name.rpartition(", ")[2]: name for name in maps}
        return {name: maps[name] for name in by_branch.values()}
    by_size = {tuple(x_BCHW.shape[-2:]): name for name, x_BCHW in maps.items()}
    return {name: maps[name] for name in by_size.values()}


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of points.

    Attributes:
        scores: coordinates of the points, (n, k), largest variance first.
        components: unit vectors, (k, d); the largest entry of each is positive.
        explained: share of the total variance of each component, (k,).
    """

    scores: NDArray[Any]
    components: NDArray[Any]
    explained: NDArray[Any]


def principal_components(points_nd: NDArray[Any], number: int = 3) -> Components:
    """Principal components of n points in d dimensions, in float64.

    Raises:
        ConfigError: if there are fewer points or dimensions than components.
    """
    if min(points_nd.shape) < number:
        raise ConfigError(
            f"{points_nd.shape[0]} points in {points_nd.shape[1]} dimensions have fewer than {number} principal "
            "components; use a larger image or a wider map"
        )
    centred = points_nd.astype(float) - points_nd.mean(axis=0, dtype=float)
    variances, vectors = np.linalg.eigh(centred.T @ centred)
    components = vectors[:, ::-1][:, :number].T
    largest = np.abs(components).argmax(axis=1)
    components = components * np.where(components[np.arange(number), largest] < 0, -1, 1)[:, None]
    total = variances.sum()
    explained = variances[::-1][:number] / total if total > 0 else np.zeros(number)
    return Components(centred @ components.T, components, explained)


@dataclass(frozen=True, eq=False)
class ColouredFeatures:
    """A map's first three principal components as red, green and blue.

    Attributes:
        rgb: float, 0 to 1, (H, W, 3), at the size of the image.
        explained: share of the total variance of each component, (3,).
        size: height and width of the map.
    """

    rgb: NDArray[Any]
    explained: NDArray[Any]
    size: Size


def coloured(map_1CHW: Tensor, image: Size) -> ColouredFeatures:
    """What a map separates: positions with similar features have similar colours.

    Each component is scaled from its 1st to its 99th percentile, then interpolated to the image.

    Args:
        map_1CHW: one map of `feature_maps`.
        image: height and width of the result.
    Raises:
        ConfigError: if the map has fewer than three positions or channels.
    """
    C, H, W = map_1CHW.shape[1:]
    found = principal_components(map_1CHW[0].detach().float().cpu().numpy().reshape(C, H * W).T)
    low, high = np.percentile(found.scores, (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT), axis=0)
    scaled = ((found.scores - low) / np.where(high > low, high - low, 1)).clip(0, 1).reshape(H, W, 3)
    small_1CHW = torch.from_numpy(scaled).permute(2, 0, 1)[None]
    large_1CHW = F.interpolate(small_1CHW, size=image, mode="bilinear", align_corners=False)
    return ColouredFeatures(large_1CHW[0].permute(1, 2, 0).clamp(0, 1).numpy(), found.explained, (H, W))
