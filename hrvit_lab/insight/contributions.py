"""What each path of a block adds to the residual stream: attention, parallel convolution, shortcut, FFN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.insight.hooks import capture, evaluating
from hrvit_lab.insight.places import BlockPlace, check_image, find_blocks
from hrvit_lab.network.blocks import Attention, Block
from hrvit_lab.network.blocks.tokens import batch_norm_tokens, to_tokens
from hrvit_lab.network.model import HRViT

SHORTCUTS = {"des": "des", "linear": "linear shortcut"}
"""Names of shortcuts that add something."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """The terms of one block: ``before`` plus all ``parts`` is ``after``.

    Attributes:
        place: of the block.
        before, after: the residual stream, (H, W, C).
        parts: what each path adds, (H, W, C), in the order of execution: ``attention``, ``parallel convolution``,
            ``bias`` (of the attention's output projection), ``des`` and ``ffn``. Paths that the block lacks are left
            out.
    """

    place: BlockPlace
    before: NDArray[Any]
    after: NDArray[Any]
    parts: dict[str, NDArray[Any]]

    @property
    def norms(self) -> dict[str, float]:
        """The Euclidean norm of each part, mean over tokens; ``stream`` is that of ``before``."""
        return {name: _norm(x_HWC) for name, x_HWC in {"stream": self.before, **self.parts}.items()}

    @property
    def shares(self) -> dict[str, float]:
        """The norms of the parts divided by that of the stream."""
        norms = self.norms
        stream = norms.pop("stream")
        return {name: norm / stream if stream else float("nan") for name, norm in norms.items()}


@torch.no_grad()
def contributions(
    model: nn.Module, image_1CHW: Tensor, names: Sequence[str] | None = None
) -> tuple[Contributions, ...]:
    """What each path of each block adds, in the order of execution.

    Attention and parallel convolution are added before an activation, so neither has a part of its own in the output.
    Each gets its Shapley value: the mean of what it adds alone and what it adds to the other. With f the activation,
    the projection and the BatchNorm, m the mixed tokens and c those of the convolution, the attention's part is
    (f(m) − f(0) + f(m + c) − f(c)) / 2. The bias is f(0).

    Args:
        model: an HRViT.
        image_1CHW: one image, as the network reads it.
        names: of blocks; None: all.
    Raises:
        ConfigError: for an unknown block.
    """
    check_image(image_1CHW)
    chosen = find_blocks(model, names)
    wanted = [name for place in chosen for name in _outputs(model, place.name)]
    seen = capture(model, image_1CHW, outputs=wanted, inputs=[place.name for place in chosen])
    shortcut = SHORTCUTS.get(cast(HRViT, model).config.shortcut)
    found = []
    for place in chosen:
        block = cast(Block, model.get_submodule(place.name))
        x_BHWC, outputs = seen.inputs[place.name], seen.outputs
        attended_BHWC = outputs[f"{place.name}.attn"]
        conv_BCHW = outputs.get(f"{place.name}.attn.parallel_conv")
        mixed_BHWC = outputs[f"{place.name}.attn.mixer"][0]
        with evaluating(block):
            parts = _shapley(cast(Attention, block.attn), mixed_BHWC, conv_BCHW)
        if shortcut:
            parts[shortcut] = outputs[f"{place.name}.shortcut"] - attended_BHWC
        if block.ffn is not None:
            parts["ffn"] = outputs[f"{place.name}.ffn"]
        arrays = {name: _array(part_BHWC) for name, part_BHWC in parts.items()}
        found.append(Contributions(place, _array(x_BHWC), _array(outputs[place.name]), arrays))
    return tuple(found)


def _outputs(model: nn.Module, name: str) -> list[str]:
    """The modules of a block whose outputs are needed; those that it lacks are left out."""
    inside = ("attn", "attn.mixer", "attn.parallel_conv", "shortcut", "ffn")
    known = dict(model.get_submodule(name).named_modules())
    return [name, *(f"{name}.{part}" for part in inside if part in known)]


def _shapley(attention: Attention, mixed_BHWC: Tensor, conv_BCHW: Tensor | None) -> dict[str, Tensor]:
    def projected(tokens_BHWC: Tensor) -> Tensor:
        active = F.hardswish(tokens_BHWC) if attention.activation else tokens_BHWC
        return batch_norm_tokens(attention.norm, attention.proj(active))

    nothing = projected(torch.zeros_like(mixed_BHWC))
    if conv_BCHW is None:
        return {"attention": projected(mixed_BHWC) - nothing, "bias": nothing}
    conv_BHWC = to_tokens(conv_BCHW)
    both, alone, other = projected(mixed_BHWC + conv_BHWC), projected(mixed_BHWC), projected(conv_BHWC)
    return {
        "attention": (alone - nothing + both - other) / 2,
        "parallel convolution": (other - nothing + both - alone) / 2,
        "bias": nothing,
    }


def _array(x_BHWC: Tensor) -> NDArray[Any]:
    return x_BHWC[0].float().cpu().numpy()


def _norm(x_HWC: NDArray[Any]) -> float:
    return float(np.linalg.norm(x_HWC, axis=-1).mean(dtype=float))
