"""One stage: every branch's patch embedding, blocks and LayerNorm, side by side.

Source: arXiv 2111.01236, section 3.1.
"""

from collections.abc import Iterable

from torch import Tensor, nn


class Stage(nn.Module):
    """Parallel branches that don't see each other; a fusion stands before each stage.

    Args:
        patch_embeds: per branch, (B, H, W, C_in) → (B, H, W, C).
        branches: per branch its blocks, (B, H, W, C) → (B, H, W, C).
        dims: per branch its channels C.

    Shape: list of (B, H_i, W_i, C_in_i) → list of (B, H_i, W_i, C_i).
    """

    def __init__(
        self, patch_embeds: Iterable[nn.Module], branches: Iterable[Iterable[nn.Module]], dims: Iterable[int]
    ) -> None:
        super().__init__()
        self.patch_embeds = nn.ModuleList(patch_embeds)
        self.branches = nn.ModuleList(nn.Sequential(*blocks) for blocks in branches)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        parts = zip(self.patch_embeds, self.branches, self.norms, maps, strict=True)
        return [norm(blocks(embed(x_BHWC))) for embed, blocks, norm, x_BHWC in parts]
