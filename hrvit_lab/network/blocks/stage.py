"""Stages: patch embedding, blocks and LayerNorm of every branch; side by side, or one scale after another.

Source: arXiv 2111.01236, section 3.1 (parallel); arXiv 2105.15203, section 3.1 (pyramid).
"""

from collections.abc import Iterable

from torch import Tensor, nn


class Stage(nn.Module):
    """Parallel branches that don't see each other; a fusion stands before each stage.

    Args:
        patch_embeds: per branch, (B, H, W, C_in) → (B, H, W, C).
        branches: per branch its blocks, (B, H, W, C) → (B, H, W, C).
        norms: per branch, what ends it, (B, H, W, C) → (B, H, W, C).

    Shape: list of (B, H_i, W_i, C_in_i) → list of (B, H_i, W_i, C_i).
    """

    def __init__(
        self, patch_embeds: Iterable[nn.Module], branches: Iterable[Iterable[nn.Module]], norms: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.patch_embeds = nn.ModuleList(patch_embeds)
        self.branches = nn.ModuleList(nn.Sequential(*blocks) for blocks in branches)
        self.norms = nn.ModuleList(norms)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        parts = zip(self.patch_embeds, self.branches, self.norms, maps, strict=True)
        return [norm(blocks(embed(x_BHWC))) for embed, blocks, norm, x_BHWC in parts]


class PyramidStage(Stage):
    """One scale of a sequential pyramid: a single branch, made of the scale before.

    Shape: list of (B, H_i, W_i, C_i), finest first → the same and one map more, at half of the last one's sides; the
    stem's map, which comes to the first scale, is replaced.
    """

    def __init__(self, patch_embed: nn.Module, blocks: Iterable[nn.Module], norm: nn.Module, *, first: bool) -> None:
        super().__init__([patch_embed], [blocks], [norm])
        self.first = first

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        (made,) = super().forward(maps[-1:])
        return [made] if self.first else [*maps, made]
