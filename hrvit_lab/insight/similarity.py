"""Similarity of representations: linear centred kernel alignment (CKA), unbiased, in minibatches.

An example is a position of an image: maps are averaged to the grid of the coarsest one. Sources: arXiv 1905.00414
(CKA); Song et al. 2012, equation 5 (unbiased HSIC); arXiv 2010.15327 (minibatches).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.features import feature_maps

Batch = Tensor | tuple[Tensor, Tensor]
MIN_EXAMPLES = 4
"""The unbiased estimate divides by n · (n − 3)."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """CKA between all maps of a network and all of another, or of itself.

    Attributes:
        rows, columns: names of the maps.
        cka: (rows, columns): 1 for equal representations up to rotation and scale, about 0 for unrelated ones.
        grid: positions of an image that were compared, down and right.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cka: NDArray[Any]
    grid: tuple[int, int]


def unbiased_hsic(k_nn: NDArray[Any], l_nn: NDArray[Any]) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion from two kernel matrices.

    Raises:
        ConfigError: for fewer than four examples.
    """
    n = len(k_nn)
    if n < MIN_EXAMPLES:
        raise ConfigError(
            f"CKA needs at least {MIN_EXAMPLES} positions, but the coarsest map has {n}; use a larger image"
        )
    a_nn, b_nn = (kernel - np.diag(np.diag(kernel)) for kernel in (k_nn, l_nn))
    term = a_nn.sum() * b_nn.sum() / ((n - 1) * (n - 2)) - 2 * (a_nn.sum(0) @ b_nn.sum(0)) / (n - 2)
    return float(((a_nn * b_nn).sum() + term) / (n * (n - 3)))


def linear_cka(x_nd: NDArray[Any], y_ne: NDArray[Any]) -> float:
    """Unbiased linear CKA of two representations of the same n examples; NaN if one of them is constant.

    Raises:
        ConfigError: for fewer than four examples.
    """
    return float(_normalised(*_moments([x_nd], [y_ne]))[0, 0])


def similarity(
    batches: Iterable[Batch], model: nn.Module, other: nn.Module | None = None, *, names: Iterable[str] | None = None
) -> Similarity:
    """CKA between the maps of a network and those of another one.

    Args:
        batches: minibatches of images, (B, C, H, W), of one size; or pairs of the same images as each network reads
            them. The estimates of HSIC are averaged over them.
        model: any network with maps (`feature_maps`).
        other: a second network; None: the same.
        names: of the maps of both that are compared; None: all.
    Raises:
        ConfigError: for networks without maps, no images, or fewer than four positions in a batch.
    """
    wanted = None if names is None else set(names)
    sums: list[NDArray[Any]] = []
    labels: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    grid = (0, 0)
    for batch in batches:
        read = batch if isinstance(batch, tuple) else (batch, batch)
        both = [
            {name: x for name, x in feature_maps(one, x_BCHW).items() if wanted is None or name in wanted}
            for one, x_BCHW in zip((model, other), read, strict=True) if one is not None
        ]  # fmt: skip
        maps = [x_BCHW for part in both for x_BCHW in part.values()]
        if not maps:
            raise ConfigError("no map has one of the names; choose names of feature_maps")
        grid = min(x_BCHW.shape[2] for x_BCHW in maps), min(x_BCHW.shape[3] for x_BCHW in maps)
        points = [[_points(x_BCHW, grid) for x_BCHW in part.values()] for part in both]
        labels = tuple(both[0]), tuple(both[-1])
        moments = _moments(points[0], points[-1])
        sums = [a + b for a, b in zip(sums, moments, strict=True)] if sums else list(moments)
    if not sums:
        raise ConfigError("no images were given; give at least one batch")
    return Similarity(*labels, _normalised(*sums), grid)


def _points(x_BCHW: Tensor, grid: tuple[int, int]) -> NDArray[Any]:
    """Positions of all images as examples, (B · positions, C), in float64."""
    small_BCHW = F.adaptive_avg_pool2d(x_BCHW.detach().float(), grid)
    return small_BCHW.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()


Moments = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def _moments(xs: list[NDArray[Any]], ys: list[NDArray[Any]]) -> Moments:
    """HSIC of every pair, of every x with itself, and of every y with itself."""
    of_x, of_y = ([x_nd @ x_nd.T for x_nd in part] for part in (xs, ys))
    return (
        np.array([[unbiased_hsic(a, b) for b in of_y] for a in of_x]),
        np.array([unbiased_hsic(a, a) for a in of_x]),
        np.array([unbiased_hsic(b, b) for b in of_y]),
    )


def _normalised(both: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    scale = np.sqrt(np.clip(rows[:, None], 0, None) * np.clip(columns[None], 0, None))
    return np.divide(both, scale, out=np.full_like(both, np.nan), where=scale > 0)
