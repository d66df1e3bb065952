"""A supernet: the largest network of a family, and the others as networks whose weights are parts of its weights."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab.config import HRViTConfig
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.seeding import seeded
from hrvit_lab.search.supernet.family import Family
from hrvit_lab.search.supernet.slices import cut, parts_of

RANDOM = 2
"""Random networks of a step, beside the largest and the smallest."""


class Supernet(nn.Module):
    """The sandwich rule: the largest network, the smallest, and random ones, on the same images.

    The random networks are drawn by torch's generator. All parameters are those of ``largest``.

    Args:
        family: the networks.

    Shape: (B, 3, H, W) → logits of each network, (2 + RANDOM, B, classes).
    """

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family
        self.largest = build(family.largest)
        self._parts = parts_of(self.largest)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        networks = self.family.networks
        drawn = [networks[index] for index in torch.randint(len(networks), (RANDOM,)).tolist()]
        return torch.stack([self.largest(x_BCHW), *(self.run(c, x_BCHW) for c in (self.family.smallest, *drawn))])

    def run(self, config: HRViTConfig, x_BCHW: Tensor) -> Tensor:
        """The logits of a network of the family, (B, classes); gradients reach the shared weights."""
        network = _built(config).train(self.training)
        return functional_call(network, self.weights(network), (x_BCHW,))

    def weights(self, network: HRViT) -> dict[str, Tensor]:
        """The parts of the shared weights that are the parameters of a network, by name.

        Args:
            network: built from a config of the family; only names and shapes are read.
        """
        shared = dict(self.largest.named_parameters())
        found = {}
        for name, own in network.named_parameters():
            # Contiguous, as the parameters of the network itself, so that the same kernels run.
            layout = torch.channels_last if own.ndim == 4 else torch.contiguous_format
            part = cut(shared[name], own.shape, self._parts.get(name, {}))
            found[name] = part.contiguous(memory_format=layout)
        return found

    @torch.no_grad()
    def extract(self, config: HRViTConfig) -> HRViT:
        """A network of the family with its own copy of the weights, and without statistics of BatchNorms."""
        network = _built(config)
        for name, part in self.weights(network).items():
            network.get_parameter(name).copy_(part)
        return network


def _built(config: HRViTConfig) -> HRViT:
    """A network whose weights do not matter. The next random numbers do not depend on its size."""
    with seeded(0):
        return build(config)


@torch.no_grad()
def calibrate(network: nn.Module, batches: list[Tensor]) -> None:
    """Set the statistics of BatchNorms to their means over batches of inputs, (B, C, H, W) each.

    Shared weights have other statistics in every network.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    for x_BCHW in batches:
        network(x_BCHW)
    network.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
