"""Efficient attention, linear in the number of tokens: the product of keys and values is computed first.

Source: arXiv 1812.01243, section 3.
"""

from torch import Tensor, nn

from hrvit_lab.parts.attention.row import num_heads


class LinearAttention(nn.Module):
    """Per head, ``softmax(q) (softmax(k)ᵀ v)``: the query's softmax over channels, the key's over all tokens.

    There is no fused kernel.

    Args:
        dim: channels; at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: unused.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads(dim, head_dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        q_BHWC, k_BHWC, v_BHWC = self.to_qkv(x_BHWC).chunk(3, dim=-1)
        context_Bhde = _by_head(k_BHWC, self.num_heads).softmax(dim=-2).transpose(-2, -1) @ _by_head(
            v_BHWC, self.num_heads
        )
        out_Bhne = _by_head(q_BHWC, self.num_heads).softmax(dim=-1) @ context_Bhde
        return out_Bhne.transpose(1, 2).reshape(x_BHWC.shape), v_BHWC


def _by_head(x_BHWC: Tensor, heads: int) -> Tensor:
    """(B, H, W, C) → (B, h, n, d), a view."""
    return x_BHWC.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)
