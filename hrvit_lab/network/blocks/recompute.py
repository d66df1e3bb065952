"""Gradient checkpointing: run a part again in the backward pass instead of keeping its activations.

Source: arXiv 2111.01236, training details.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(part: nn.Module, x: Tensor, *, recompute: bool) -> Tensor:
    """``part(x)``; in training, with ``recompute``, without keeping what its backward pass can compute again."""
    return checkpoint(part, x, use_reentrant=False) if recompute and part.training else part(x)


def adapt_momentum(parts: Iterable[nn.Module], *, recompute: bool) -> None:
    """Make BatchNorms of parts that are now recomputed (or no longer) move as fast per step as before.

    A recomputed BatchNorm updates its statistics twice per step, so its momentum m becomes 1 − √(1 − m).
    """
    for part in parts:
        for module in part.modules():
            if isinstance(module, _BatchNorm) and module.momentum is not None:
                kept = 1 - module.momentum
                module.momentum = 1 - (kept**0.5 if recompute else kept**2)
