"""Gradient checkpointing: run a module again in the backward pass instead of keeping its activations.

Source: arXiv 2111.01236, training details.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(part: nn.Module, x: Tensor, *, recompute: bool) -> Tensor:
    """``part(x)``; in training, if ``recompute``, with gradient checkpointing."""
    return checkpoint(part, x, use_reentrant=False) if recompute and part.training else part(x)


def adapt_momentum(parts: Iterable[nn.Module], *, recompute: bool) -> None:
    """Adapt the momentum of BatchNorms when gradient checkpointing is switched on or off.

    A recomputed BatchNorm updates its statistics twice per step, so its momentum m becomes 1 − √(1 − m).
    """
    for part in parts:
        for module in part.modules():
            if isinstance(module, _BatchNorm) and module.momentum is not None:
                kept = 1 - module.momentum
                module.momentum = 1 - (kept**0.5 if recompute else kept**2)
