"""Attention maps of an HRViT's blocks, from queries and keys that forward hooks capture; the fused kernels stay on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.heads import Heads, Size, on_tokens, rows
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.locate import check_token, on_image, token_at
from hrvit_lab.insight.places import BlockPlace, check_image, find_blocks
from hrvit_lab.insight.timm_attention import attention_modules, timm_attention
from hrvit_lab.insight.variants import MAPS, Map
from hrvit_lab.network.blocks import Attention
from hrvit_lab.network.model import HRViT


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """The attention of one block for one image.

    Attributes:
        place: of the block.
        image: height and width of the image in pixels.
        heads: queries and keys, from which maps are computed.
    """

    place: BlockPlace
    image: Size
    heads: Heads

    @property
    def size(self) -> Size:
        """Height and width of the map in tokens."""
        return self.heads.size

    @property
    def num_heads(self) -> int:
        """Heads; of cross-shaped attention, the first half has horizontal stripes."""
        return len(self.heads.q_hnd)

    def of_token(self, token: tuple[int, int]) -> NDArray[Any]:
        """Where a token attends, per head: (heads, H, W) over the tokens; each map sums to 1.

        A merged key's weight is spread evenly over the tokens that it stands for. Weights of class tokens have no place
        on the map, so that maps of networks with such tokens sum to less.

        Raises:
            ConfigError: if the map has no such token.
        """
        check_token(token, self.size)
        number = torch.tensor([self.heads.prefix + token[0] * self.size[1] + token[1]], device=self.heads.q_hnd.device)
        return on_tokens(self.heads, rows(self.heads, number))[:, 0].cpu().numpy()

    def of_pixel(self, pixel: tuple[int, int]) -> NDArray[Any]:
        """Where the token that covers a pixel attends: (heads, H, W) over the pixels of the image.

        Each pixel has the weight of its token, so the sum is that of the map times the pixels of a token.

        Raises:
            ConfigError: if the image has no such pixel.
        """
        token = token_at(pixel, self.image, self.place.stride)
        return on_image(self.of_token(token), self.image, self.place.stride)

    def of_all(self) -> NDArray[Any]:
        """The maps of all tokens, (heads, tokens, keys), rows summing to 1. For small maps: 128 × 128 tokens need 1 GiB
        for each head."""
        tokens = torch.arange(self.size[0] * self.size[1], device=self.heads.q_hnd.device)
        return rows(self.heads, self.heads.prefix + tokens).cpu().numpy()


def block_attention(
    model: nn.Module, image_1CHW: Tensor, names: Sequence[str] | None = None
) -> tuple[BlockAttention, ...]:
    """The attention of blocks, in the order of execution.

    Args:
        model: an HRViT; or a model of timm with its standard attention (`timm_attention`).
        image_1CHW: one image, as the network reads it.
        names: of blocks, such as ``"stages.2.branches.1.0"``; None: all that have a map.
    Raises:
        ConfigError: for an unknown block, a block without a map, or a network without any.
    """
    image = check_image(image_1CHW)
    if not isinstance(model, HRViT):
        return tuple(
            BlockAttention(place, image, heads) for place, heads in timm_attention(model, image_1CHW, names).items()
        )
    chosen: list[tuple[BlockPlace, Map]] = []
    reasons: dict[str, None] = {}
    for place in find_blocks(model, names):
        row = MAPS.get(place.variant, f"insight has no map for attention {place.variant!r}; add a line to MAPS")
        if isinstance(row, Map):
            chosen.append((place, row))
        elif names is not None:
            raise ConfigError(f"{place.name}: {row}; choose a block with attention")
        else:
            reasons[row] = None
    if not chosen:
        raise ConfigError(f"the network has no attention map: {'; '.join(reasons)}; choose a network with attention")
    wanted = [f"{place.name}.attn.mixer.{part}" for place, row in chosen for part in row.projections]
    seen = capture(model, image_1CHW, outputs=wanted).outputs
    found = []
    for place, row in chosen:
        mixer = model.get_submodule(f"{place.name}.attn.mixer")
        outputs = {part: _precise(seen[f"{place.name}.attn.mixer.{part}"][0]) for part in row.projections}
        found.append(BlockAttention(place, image, row.read(mixer, outputs)))
    return tuple(found)


def attention_blocks(model: nn.Module) -> list[str]:
    """The names of the blocks whose attention has a map, in the order of execution; empty for a network without any."""
    if not isinstance(model, HRViT):
        return list(attention_modules(model))
    return [place.name for place in find_blocks(model, None) if isinstance(MAPS.get(place.variant), Map)]


def _precise(x: Tensor) -> Tensor:
    """At least float32."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def remarks(model: nn.Module, trained: bool) -> tuple[str, ...]:
    """Sentences that must stand beside every result of such weights: random ones, or attention that is switched off.

    Args:
        trained: whether the weights are those of a training.
    """
    said = [] if trained else ["Random weights: nothing here was learned."]
    silent = [
        not module.norm.weight.any() and not module.norm.bias.any()
        for module in model.modules()
        if isinstance(module, Attention) and isinstance(module.norm, nn.BatchNorm1d)
    ]
    if silent and all(silent):
        said.append("The BatchNorm after attention is zero, as at initialisation: attention does not reach the output.")
    elif any(silent):
        said.append(
            f"The BatchNorm after attention is zero in {sum(silent)} of {len(silent)} blocks: their attention does not "
            "reach the output."
        )
    return tuple(said)


def mean_over_heads(maps: NDArray[Any]) -> NDArray[Any]:
    """(heads, …) → (…)."""
    return np.asarray(maps).mean(axis=0)
