"""The attention of a block: a token mixer, an optional parallel convolution, and the output projection.

Source: arXiv 2111.01236, section 3.2. Without all three options, it is the standard attention of transformers.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import added
from hrvit_lab.network.blocks.tokens import batch_norm_tokens, conv_tokens, depthwise


class Attention(nn.Module):
    """``norm(proj(act(mixed + conv(hardswish(values)))))``.

    Args:
        dim: channels C.
        mixer: x (B, H, W, C) → mixed tokens and values, both (B, H, W, C). It contains the projections of x. The values
            are the tokens that it averages; it returns x in their place if their size differs from that of x.
        parallel_conv: add a depthwise 3×3 convolution of the values, after Hardswish.
        activation: Hardswish before the output projection.
        batch_norm: BatchNorm after the output projection, with weight and bias initialized to zero.
        proj_drop: dropout after the output projection.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    batch_norms = (("proj", "norm"),)
    inplace = False

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        parallel_conv: bool = True,
        activation: bool = True,
        batch_norm: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.parallel_conv = depthwise(dim, 3) if parallel_conv else None
        self.activation = activation
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.norm: nn.Module = nn.Identity()
        if batch_norm:
            self.norm = silent = nn.BatchNorm1d(dim)
            nn.init.zeros_(silent.weight)
            nn.init.zeros_(silent.bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return batch_norm_tokens(self.norm, self.proj_drop(self.proj(refined(self, x_BHWC))))

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference, once the BatchNorm is folded."""
        return ServedAttention(self)


def refined(attention: "Attention | ServedAttention", x_BHWC: Tensor) -> Tensor:
    """Tokens after mixer, convolution and activation, (B, H, W, C). A method, so that other tensors are freed on
    return."""
    mixed_BHWC, values_BHWC = attention.mixer(x_BHWC)
    if attention.parallel_conv is not None:
        local_BHWC = conv_tokens(attention.parallel_conv, F.hardswish(values_BHWC))
        mixed_BHWC = added(local_BHWC, mixed_BHWC, attention.inplace)
        del local_BHWC
    del values_BHWC
    return F.hardswish(mixed_BHWC, inplace=attention.inplace) if attention.activation else mixed_BHWC


class ServedAttention(nn.Module):
    """Attention without modules that are identities in evaluation mode.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    inplace = True

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.mixer, self.parallel_conv, self.proj = attention.mixer, attention.parallel_conv, attention.proj
        self.activation = attention.activation

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.proj(refined(self, x_BHWC))
