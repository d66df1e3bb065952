"""A transformer block: attention with a parallel shortcut, then a feed-forward network, both residual.

Source: arXiv 2111.01236, section 3.2.
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.drop_path import DropPath
from hrvit_lab.network.blocks.inplace import added
from hrvit_lab.network.blocks.recompute import adapt_momentum, run


class Block(nn.Module):
    """``x + drop_path(attention(LN x) + shortcut(x))``, then ``x + drop_path(ffn(LN x))``.

    Args:
        dim: channels C.
        attention: module (B, H, W, C) → (B, H, W, C).
        shortcut: module (x, y) → y + shortcut(x), all (B, H, W, C).
        ffn: module (B, H, W, C) → (B, H, W, C); None: no feed-forward network.
        drop_path: probability that a sample skips a residual branch.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(
        self, dim: int, attention: nn.Module, shortcut: nn.Module, ffn: nn.Module | None, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = attention
        self.shortcut = shortcut
        self.ffn_norm = None if ffn is None else nn.LayerNorm(dim)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Recompute attention and feed-forward network in the backward pass."""
        if enable != self.grad_checkpointing:
            self.grad_checkpointing = enable
            adapt_momentum(filter(None, (self.attn, self.ffn)), recompute=enable)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.shortcut(x_BHWC, self._attended(x_BHWC)))
        if self.ffn is None or self.ffn_norm is None:
            return x_BHWC
        return x_BHWC + self.drop_path(run(self.ffn, self.ffn_norm(x_BHWC), recompute=self.grad_checkpointing))

    def _attended(self, x_BHWC: Tensor) -> Tensor:
        """The output of attention. A method, so that no local variable keeps the tensor alive after the shortcut used
        it."""
        return run(self.attn, self.attn_norm(x_BHWC), recompute=self.grad_checkpointing)

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference."""
        return ServedBlock(self)


class ServedBlock(nn.Module):
    """A block without modules that are identities in evaluation mode; sums overwrite the outputs of its modules.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attn_norm, self.attn, self.shortcut = block.attn_norm, block.attn, block.shortcut
        self.ffn_norm, self.ffn = block.ffn_norm, block.ffn

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = added(self.shortcut(x_BHWC, self.attn(self.attn_norm(x_BHWC))), x_BHWC, inplace=True)
        if self.ffn is None or self.ffn_norm is None:
            return x_BHWC
        return added(self.ffn(self.ffn_norm(x_BHWC)), x_BHWC, inplace=True)
