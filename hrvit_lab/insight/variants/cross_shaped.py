"""Attention within horizontal and vertical stripes."""

from collections.abc import Mapping

from torch import Tensor, nn

from hrvit_lab.insight.heads import Group, Heads
from hrvit_lab.insight.variants.split import numbered, split_heads


def cross_shaped(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """Key and value are one tensor. The first half of the heads has horizontal stripes, the second half vertical
    ones."""
    q_HWC, v_HWC = outputs["to_qv"].chunk(2, dim=-1)
    return _stripes(mixer, q_HWC, v_HWC, v_HWC)


def cross_shaped_qkv(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """The same with a separate key; also CSWin's attention, whose convolution of the values is not in the map."""
    return _stripes(mixer, *outputs["to_qkv"].chunk(3, dim=-1))


def _stripes(mixer: nn.Module, q_HWC: Tensor, k_HWC: Tensor, v_HWC: Tensor) -> Heads:
    half: int = mixer.num_heads  # type: ignore[assignment]
    width: int = mixer.window_size  # type: ignore[assignment]
    size = q_HWC.shape[0], q_HWC.shape[1]
    tokens_HW = numbered(size, q_HWC.device)
    across = slice(0, half), slice(half, 2 * half)
    groups = [
        Group(heads, part.reshape(-1, rows * part.shape[1]), part.reshape(-1, rows * part.shape[1]))
        for heads, map_HW in zip(across, (tokens_HW, tokens_HW.t()), strict=True)
        for part, rows in _whole_and_rest(map_HW, width)
    ]
    q_hnd, k_hnd, v_hnd = (split_heads(x_HWC, 2 * half) for x_HWC in (q_HWC, k_HWC, v_HWC))
    return Heads(q_hnd, k_hnd, v_hnd, size, tuple(groups), size)


def _whole_and_rest(map_HW: Tensor, width: int) -> list[tuple[Tensor, int]]:
    """The rows of whole stripes and those of a last, narrower one, with the rows of a stripe in each."""
    rest = map_HW.shape[0] % width
    whole = map_HW[: map_HW.shape[0] - rest], width
    last = map_HW[map_HW.shape[0] - rest :], rest
    return [(part, rows) for part, rows in (whole, last) if len(part)]
