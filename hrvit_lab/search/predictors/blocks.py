"""AZ-NAS's predictors from the features of blocks, for an input of noise (arXiv 2403.19232).

Its fourth part, complexity, is the number of MACs. In a network of parallel branches, the consecutive blocks are those
of one branch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from hrvit_lab.config.plan import plan
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.places import places
from hrvit_lab.search.predictors import Batch


def expressivity(model: nn.Module, batch: Batch) -> float:
    """The sum over blocks of the `entropy` of their outputs."""
    return sum(entropy(output) for chain in _chains(cast(HRViT, model), batch) for _, output in chain)


def progressivity(model: nn.Module, batch: Batch) -> float:
    """The smallest increase of the `entropy` from a block to the next one; 0 without two consecutive blocks."""
    entropies = [[entropy(output) for _, output in chain] for chain in _chains(cast(HRViT, model), batch)]
    return min((after - before for chain in entropies for before, after in pairwise(chain)), default=0.0)


def trainability(model: nn.Module, batch: Batch) -> float:
    """The mean over blocks of ``2 − σ − 1/σ``, with σ the `spectral_norm` of the block's Jacobian; 0 is the best."""
    found = []
    for chain in _chains(cast(HRViT, model), batch):
        for given, output in chain:
            signs = torch.randint(0, 2, output.shape).to(output) * 2 - 1
            (back,) = torch.autograd.grad(output, given, signs, retain_graph=True)
            sigma = spectral_norm(back, signs)
            found.append(2 - sigma - 1 / sigma)
    return sum(found) / len(found)


def entropy(features: Tensor) -> float:
    """``−Σ p log p`` of the shares p of the principal components of features, (…, C), in their variance."""
    tokens_nc = features.detach().flatten(0, -2).double()
    centred_nc = tokens_nc - tokens_nc.mean(0)
    variances = torch.linalg.eigvalsh(centred_nc.T @ centred_nc).clamp(min=0)
    shares = variances / variances.sum()
    return float(-torch.special.xlogy(shares, shares).sum())


def spectral_norm(back: Tensor, signs: Tensor) -> float:
    """The largest singular value of a channel Jacobian, estimated from random signs and their product with it.

    Args:
        back, signs: (…, C) each; the mean over tokens of ``back signsᵀ`` is the transposed Jacobian, since random signs
            are uncorrelated.
    """
    back_nc, signs_nc = back.flatten(0, -2).double(), signs.flatten(0, -2).double()
    return float(torch.linalg.matrix_norm(back_nc.T @ signs_nc / len(signs_nc), 2))


def _chains(model: HRViT, batch: Batch) -> Sequence[Sequence[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of the blocks, (B, H, W, C) each, by branch; in a pyramid all blocks follow each other."""
    calls: dict[int, list[tuple[Tensor, Tensor]]] = {}
    hooks = []
    for place in places(plan(model.config)):
        if place.part.kind == "block":
            chain = calls.setdefault(0 if model.config.topology == "pyramid" else place.branch or 0, [])

            def note(
                _: nn.Module, given: tuple[Tensor], output: Tensor, chain: list[tuple[Tensor, Tensor]] = chain
            ) -> None:
                chain.append((given[0], output))

            hooks.append(model.get_submodule(place.name).register_forward_hook(note))
    model(torch.randn(batch.images.shape))
    for hook in hooks:
        hook.remove()
    return list(calls.values())
