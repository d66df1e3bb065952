"""Stages: patch embedding, blocks and LayerNorm of every branch, for parallel branches and for pyramids.

Source: arXiv 2111.01236, section 3.1 (parallel); arXiv 2105.15203, section 3.1 (pyramid).
"""

from collections.abc import Iterable

from torch import Tensor, nn


class Stage(nn.Module):
    """Parallel, independent branches; a fusion precedes each stage.

    Args:
        patch_embeds: per branch, (B, H, W, C_in) → (B, H, W, C).
        branches: per branch, its blocks, (B, H, W, C) → (B, H, W, C).
        norms: per branch, its final norm, (B, H, W, C) → (B, H, W, C).

    Shape: (B, H_i, W_i, C_in_i) of every branch → tuple of (B, H_i, W_i, C_i).
    """

    def __init__(
        self, patch_embeds: Iterable[nn.Module], branches: Iterable[Iterable[nn.Module]], norms: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.patch_embeds = nn.ModuleList(patch_embeds)
        self.branches = nn.ModuleList(nn.Sequential(*blocks) for blocks in branches)
        self.norms = nn.ModuleList(norms)

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        parts = zip(self.patch_embeds, self.branches, self.norms, maps, strict=True)
        return tuple(norm(blocks(_wide(embed(x_BHWC), blocks))) for embed, blocks, norm, x_BHWC in parts)


def _wide(x_BHWC: Tensor, blocks: nn.Module) -> Tensor:
    """The map in the dtype of the blocks' weights.

    Therefore, under autocast the residual stream starts in float32. It stays in float32, because sums have the wider
    dtype.
    """
    weight = next(blocks.parameters(), None)  # a replacement of the blocks may have no parameters
    return x_BHWC if weight is None else x_BHWC.to(weight.dtype)


class PyramidStage(Stage):
    """One scale of a sequential pyramid: a single branch that reads the previous scale.

    Shape: (B, H_i, W_i, C_i) of the previous scales, finest first → tuple of these and one more map, at half the size
    of the last one. The first scale replaces the stem's map.
    """

    def __init__(self, patch_embed: nn.Module, blocks: Iterable[nn.Module], norm: nn.Module, *, first: bool) -> None:
        super().__init__([patch_embed], [blocks], [norm])
        self.first = first

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        made = super().forward(maps[-1])
        return made if self.first else (*maps, *made)
