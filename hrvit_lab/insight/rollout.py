"""Rollout: where a token attends through several blocks, as a product of attention matrices.

Source: arXiv 2005.00928 (attention rollout). Residual connections are an identity with a fixed share.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.attention import BlockAttention, block_attention, mean_over_heads
from hrvit_lab.insight.heads import Size, on_tokens, pulled
from hrvit_lab.insight.locate import check_token
from hrvit_lab.insight.places import check_image
from hrvit_lab.network.blocks import Fusion, WeightedSum
from hrvit_lab.network.model import HRViT

RESIDUAL = 0.5
"""The share of the residual stream in the output of a block, as in the source."""


def branch_rollout(
    blocks: Sequence[BlockAttention], token: tuple[int, int], *, residual: float = RESIDUAL
) -> NDArray[Any]:
    """Where a token of the last block attends, in tokens at the input of the first block.

    The mean map over heads of the last block is carried back through the others, of which each is
    ``residual · identity + (1 − residual) · map``. The last block's own residual is left out, so that the rollout of
    one block is its map.

    Args:
        blocks: consecutive blocks of one branch and stage.
        token: (row, column).
        residual: 0 to 1.
    Returns:
        (H, W), which sums to 1.
    Raises:
        ConfigError: if there are no blocks, or blocks of several branches or stages; for a token outside.
    """
    if len({(one.place.stage, one.place.branch) for one in blocks}) != 1:
        raise ConfigError(
            f"{len(blocks)} blocks of {len({(one.place.stage, one.place.branch) for one in blocks})} branches: give "
            "the blocks of one branch and stage"
        )
    last = blocks[-1]
    amounts_n = torch.from_numpy(mean_over_heads(last.of_token(token))).to(last.heads.q_hnd.device).double().flatten()
    for one in reversed(blocks[:-1]):
        amounts_n = residual * amounts_n + (1 - residual) * _moved(one, amounts_n)
    return amounts_n.view(last.size).float().cpu().numpy()


@torch.no_grad()
def network_rollout(
    model: nn.Module,
    image_1CHW: Tensor,
    branch: int,
    token: tuple[int, int],
    *,
    residual: float = RESIDUAL,
    attention: Sequence[BlockAttention] | None = None,
) -> NDArray[Any]:
    """Where a token of a branch's last map comes from, in tokens of the stem's map. An approximation.

    Blocks are as in `branch_rollout`, each with its residual. Fusions are linear maps: all paths into a branch have the
    same share (of a weighted sum, its weights); a path from a finer branch is the mean of the tokens that a token
    covers, one from a coarser branch its interpolation. Convolutions inside blocks, FFNs and shortcuts move nothing.

    Args:
        model: an HRViT with attention.
        image_1CHW: one image, as the network reads it.
        branch: 0 is the finest.
        token: (row, column) in that branch.
        residual: 0 to 1.
        attention: of all blocks for this image, if it is known; otherwise the network is run.
    Returns:
        (H, W) of the stem's map, at a quarter of the image's sides; it sums to 1.
    Raises:
        ConfigError: for a network without attention, or a branch or token that it does not have.
    """
    image = check_image(image_1CHW)
    found = by_branch(block_attention(model, image_1CHW) if attention is None else attention)
    model = cast(HRViT, model)
    sizes = model.config.map_sizes(image)
    if not 0 <= branch < len(sizes):
        raise ConfigError(f"branch {branch} does not exist; the network has branches 0 to {len(sizes) - 1}")
    amounts = {branch: _one_hot(sizes[branch], token).to(image_1CHW.device)}
    pyramid = model.config.topology == "pyramid"
    for stage in reversed(range(branch + 1 if pyramid else len(model.stages))):
        for b, amounts_n in amounts.items():
            for one in reversed(found.get((stage, b), [])):
                amounts_n = residual * amounts_n + (1 - residual) * _moved(one, amounts_n)
            amounts[b] = amounts_n
        if pyramid:
            amounts = {max(b - 1, 0): _resampled(a, b, max(b - 1, 0), sizes, "nearest") for b, a in amounts.items()}
        else:
            amounts = _unfused(model.fusions[stage], amounts, sizes, model.config.upsample)
    return amounts[0].view(sizes[0]).float().cpu().numpy()


def by_branch(attention: Sequence[BlockAttention]) -> dict[tuple[int, int], list[BlockAttention]]:
    """The blocks of every (stage, branch), in the order of execution."""
    found: dict[tuple[int, int], list[BlockAttention]] = {}
    for one in attention:
        found.setdefault((one.place.stage, one.place.branch), []).append(one)
    return found


def _one_hot(size: Size, token: tuple[int, int]) -> Tensor:
    check_token(token, size)
    amounts_n = torch.zeros(size[0] * size[1], dtype=torch.float64)
    amounts_n[token[0] * size[1] + token[1]] = 1
    return amounts_n


def _moved(one: BlockAttention, amounts_n: Tensor) -> Tensor:
    """Amounts at tokens moved to the tokens that they attend to."""
    return on_tokens(one.heads, pulled(one.heads, amounts_n)).flatten()


def _unfused(fusion: nn.Module, amounts: dict[int, Tensor], sizes: Sequence[Size], mode: str) -> dict[int, Tensor]:
    """Amounts at the outputs of a fusion moved to its inputs."""
    before: dict[int, Tensor] = {}
    for target, amounts_n in amounts.items():
        for source, share in _shares(fusion, target).items():
            moved = share * _resampled(amounts_n, target, source, sizes, mode)
            before[source] = before[source] + moved if source in before else moved
    return before


def _shares(fusion: nn.Module, target: int) -> dict[int, float]:
    """The share of each input branch in an output branch; they sum to 1."""
    if isinstance(fusion, WeightedSum):
        if fusion.weights is None:
            return {0: 1.0}
        weights = fusion.weights[target].relu().double()
        return dict(enumerate((weights / weights.sum()).tolist()))
    sources = [int(source) for source in cast(nn.ModuleDict, cast(Fusion, fusion).paths[target])]
    return dict.fromkeys(sources, 1 / len(sources))


def _resampled(amounts_n: Tensor, target: int, source: int, sizes: Sequence[Size], mode: str) -> Tensor:
    """Amounts at a branch moved to the tokens of another branch that it is resampled from."""
    if source == target:
        return amounts_n

    def forward(x_11HW: Tensor) -> Tensor:
        if source < target:
            return F.avg_pool2d(x_11HW, 2 ** (target - source), ceil_mode=True, count_include_pad=False)
        corners = None if mode == "nearest" else False
        return F.interpolate(x_11HW, size=sizes[target], mode=mode, align_corners=corners)

    # A row vector times the matrix of a linear map is the map's vector-Jacobian product.
    pull = torch.func.vjp(forward, amounts_n.new_zeros(1, 1, *sizes[source]))[1]
    return pull(amounts_n.view(1, 1, *sizes[target]))[0].flatten()
