"""Attention maps compared with the outputs of the modules, and with loops over tokens written from the definitions."""

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_attention import (
    Sees,
    Token,
    congruent,
    convolve_by_loop,
    everything,
    in_shifted_window,
    in_stripe,
    in_window,
    loud,
    tiny,
    tokens_of,
    woken,
)
from torch import Tensor, nn

from hrvit_lab import create_model, deploy
from hrvit_lab.errors import ConfigError
from hrvit_lab.insight import heads as parts
from hrvit_lab.insight.attention import BlockAttention, block_attention, remarks
from hrvit_lab.insight.heads import on_tokens, pulled
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.variants import MAPS, Map
from hrvit_lab.network.blocks import ATTENTION, Attention
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT

IMAGE = (49, 35)
"""13 × 9 and 7 × 5 tokens."""
ATTENDING = [name for name in ATTENTION if isinstance(MAPS.get(name), Map)]


def network(variant: str, window: int = 4) -> HRViT:
    """Two branches of two blocks, with weights at which softmax chooses."""
    model = woken(build(tiny(variant, window_sizes=window))).eval()
    for module in model.modules():
        if isinstance(module, Attention):
            loud(module.mixer)
    return model


def test_every_variant_has_an_attention_map_or_a_reason_for_having_none() -> None:
    assert set(MAPS) == set(ATTENTION)
    for row in MAPS.values():
        assert isinstance(row, Map) or row.endswith("so it has no attention map")
    assert set(ATTENTION) - set(ATTENDING) == {"depthwise_conv", "identity"}


# -- maps times values ------------------------------------------------------------------------------------------------


def local_part(mixer: Any, x_HWC: Tensor, window: int) -> Tensor:
    """The convolution of the values in CSWin, by loops; zero for all others."""
    if not hasattr(mixer, "lepe_rows"):
        return torch.zeros_like(x_HWC)
    rows, columns = mixer.to_qkv(x_HWC).chunk(3, -1)[2].chunk(2, -1)
    upright = copy.deepcopy(mixer.lepe_columns)
    upright.weight.copy_(mixer.lepe_columns.weight.transpose(2, 3))
    stripes = in_stripe(0, window), in_stripe(1, window)
    return torch.cat(
        [
            convolve_by_loop(v, conv, may)
            for v, conv, may in zip((rows, columns), (mixer.lepe_rows, upright), stripes, strict=True)
        ],
        -1,
    )


@torch.no_grad()
@pytest.mark.parametrize("window", [4, 20])
@pytest.mark.parametrize("variant", ATTENDING)
def test_attention_map_times_values_equals_the_output_of_the_module(
    variant: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every token, head and block, with the fused path; windows with a remainder, and one window larger than the
    map."""
    model, image = network(variant, window), torch.randn(1, 3, *IMAGE)
    before = model(image)
    fused: list[int] = []
    kernel = F.scaled_dot_product_attention

    def watched(q: Tensor, *given: Any) -> Tensor:
        fused.append(1)
        return kernel(q, *given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    found = block_attention(model, image)
    assert bool(fused) == (variant != "linear"), "the explicit path ran"
    names = [one.place.name for one in found]
    seen = capture(model, image, outputs=[f"{name}.{part}" for name in names for part in ("attn_norm", "attn.mixer")])
    assert torch.equal(seen.result, before)
    assert [one.size for one in found] == [(13, 9), (13, 9), (7, 5), (7, 5)]
    for one in found:
        weights = torch.from_numpy(one.of_all())
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5, rtol=0)
        attended = (weights @ one.heads.v_hmd).transpose(0, 1).reshape(*one.size, -1)
        x_HWC = seen.outputs[f"{one.place.name}.attn_norm"][0]
        mixer = model.get_submodule(f"{one.place.name}.attn.mixer")
        expected = seen.outputs[f"{one.place.name}.attn.mixer"][0][0] - local_part(mixer, x_HWC, window)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)


# -- maps by loops ----------------------------------------------------------------------------------------------------

Bias = Callable[[int, Token, Token], float]


def softmax_by_loop(q: Tensor, k: Tensor, head: int, heads: int, token: Token, sees: Sees, bias: Bias) -> Tensor:
    """(keys' height, width): the weights of one token and head."""
    d = q.shape[-1] // heads
    own = slice(head * d, (head + 1) * d)
    scores = {
        b: math.exp(float(q[token][own] @ k[b][own]) / math.sqrt(d) + bias(head, token, b))
        for b in tokens_of(k)
        if sees(token, b)
    }
    out = torch.zeros(k.shape[:2], dtype=q.dtype)
    for b, score in scores.items():
        out[b] = score / sum(scores.values())
    return out


def no_bias(head: int, a: Token, b: Token) -> float:
    return 0.0


def map_by_loop(variant: str, mixer: Any, x: Tensor, token: Token, w: int) -> Tensor:
    """(heads, H, W): where a token attends, from the definition of each variant."""
    H, W, C = x.shape
    if variant in ("cross_shaped", "cross_shaped_qkv", "cswin"):
        projected = (mixer.to_qv if variant == "cross_shaped" else mixer.to_qkv)(x)
        q, k = projected[..., :C], projected[..., C : 2 * C]
        n = 2 * mixer.num_heads
        return torch.stack(
            [softmax_by_loop(q, k, h, n, token, in_stripe(int(h >= n // 2), w), no_bias) for h in range(n)]
        )
    n = mixer.num_heads
    if variant == "spatial_reduction":
        q, k = mixer.to_q(x), mixer.to_kv(mixer._merged(x[None]))[0][..., :C]
        merged = torch.stack([softmax_by_loop(q, k, h, n, token, everything, no_bias) for h in range(n)])
        out = torch.zeros(n, H, W, dtype=x.dtype)
        for i, j in tokens_of(k):
            cells = [(y, c) for y in range(i * w, i * w + w) for c in range(j * w, j * w + w) if y < H and c < W]
            for y, c in cells:
                out[:, y, c] = merged[:, i, j] / len(cells)
        return out
    q, k, _ = mixer.to_qkv(x).chunk(3, -1)
    if variant == "linear":
        d = C // n
        out = torch.zeros(n, H, W, dtype=x.dtype)
        for h in range(n):
            for e in range(h * d, h * d + d):
                of_query = q[token][e].exp() / q[token][h * d : h * d + d].exp().sum()
                out[h] += of_query * k[..., e].exp() / k[..., e].exp().sum()
        return out
    sees = {
        "window": in_window(w),
        "shifted_window": in_shifted_window(w, (H, W)),
        "dilated_window": congruent(w, (H, W)),
        "global": everything,
    }[variant]

    def bias(head: int, a: Token, b: Token) -> float:
        return float(mixer.relative_bias[head, a[0] - b[0] + w - 1, a[1] - b[1] + w - 1])

    biased = bias if "window" in variant and "dilated" not in variant else no_bias
    return torch.stack([softmax_by_loop(q, k, h, n, token, sees, biased) for h in range(n)])


@torch.no_grad()
@pytest.mark.parametrize("variant", ATTENDING)
def test_the_attention_map_of_a_pixel_equals_that_of_naive_loops(variant: str) -> None:
    """Every pixel of the image has the weight of its token, also in the last token, which is only partly covered."""
    model, image = network(variant), torch.randn(1, 3, *IMAGE)
    found = block_attention(model, image)
    inputs = capture(model, image, outputs=[f"{one.place.name}.attn_norm" for one in found]).outputs
    for one, pixel in zip(found, ((0, 0), (48, 34), (21, 17), (30, 34)), strict=True):
        side = 4 * 2**one.place.branch
        shift = cast(Any, model.get_submodule(f"{one.place.name}.attn.mixer"))
        name = "window" if variant == "shifted_window" and shift.shift == 0 else variant
        assert one.place.variant == name
        token = pixel[0] // side, pixel[1] // side
        naive = map_by_loop(name, shift, inputs[f"{one.place.name}.attn_norm"][0], token, 4)
        expected = torch.zeros(len(naive), *IMAGE)
        for y in range(IMAGE[0]):
            for x in range(IMAGE[1]):
                expected[:, y, x] = naive[:, y // side, x // side]
        drawn = torch.from_numpy(one.of_pixel(pixel))
        torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(one.of_token(token)).sum((1, 2)), torch.ones(len(naive)))


def test_a_merged_key_covers_only_existing_tokens() -> None:
    """A patch of 8 on 13 × 9 tokens leaves a remainder without a key; a patch wider than the map covers all of it."""
    fine, _, coarse, _ = block_attention(network("spatial_reduction", 8), torch.randn(1, 3, *IMAGE))
    expected = np.zeros((13, 9))
    expected[:8, :8] = 1 / 64
    np.testing.assert_allclose(fine.of_token((12, 8)), np.broadcast_to(expected, (2, 13, 9)), atol=1e-7)
    np.testing.assert_allclose(coarse.of_token((0, 0)), np.full((4, 7, 5), 1 / 35), atol=1e-7)


# -- parts of limited size --------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", ["cross_shaped", "shifted_window", "spatial_reduction", "linear"])
def test_weights_computed_in_parts_equal_the_whole_map(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights computed in parts equal those of the dense maps; so do amounts distributed to the keys."""
    [one, *_] = block_attention(network(variant), torch.randn(1, 3, *IMAGE))
    dense = torch.from_numpy(one.of_all())
    amounts = torch.rand(dense.shape[1])
    expected = amounts @ dense.mean(0)
    for size in (50, 3000):
        monkeypatch.setattr(parts, "MAX_ELEMENTS", size)
        again = torch.zeros_like(dense)
        for block in parts.blocks(one.heads):
            for number, (queries, keys) in enumerate(zip(block.queries, block.keys, strict=True)):
                mine = again[block.heads]
                mine[:, queries[:, None], keys[None]] += block.weights[number]
        torch.testing.assert_close(again, dense, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(one.of_all()), dense, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(pulled(one.heads, amounts), expected, atol=1e-6, rtol=1e-5)
    assert on_tokens(one.heads, expected).shape == (13, 9)


# -- the network is left alone, and invalid requests ------------------------------------------------------------------


def test_capture_does_not_change_the_network() -> None:
    model = network("cross_shaped").train()
    model.stages[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    block_attention(model, torch.randn(1, 3, *IMAGE))
    with pytest.raises(ConfigError, match="is too small"):
        block_attention(model, torch.randn(1, 3, 5, 5))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stages.0.branches.0.7", "unknown block 'stages.0.branches.0.7'; did you mean"),
        ("stem", "unknown block 'stem'; use one of"),
    ],
)
def test_an_unknown_block_is_reported_in_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        block_attention(network("global"), torch.randn(1, 3, *IMAGE), [name])


def test_networks_without_attention_maps_are_reported() -> None:
    image = torch.randn(1, 3, *IMAGE)
    with pytest.raises(ConfigError, match="the network has no attention map: identity mixes no tokens"):
        block_attention(network("identity"), image)
    mixed = build(tiny(("cross_shaped", "depthwise_conv")))
    assert [one.place.branch for one in block_attention(mixed, image)] == [0, 0]
    with pytest.raises(ConfigError, match=r"^stages\.0\.branches\.1\.0: a depthwise convolution"):
        block_attention(mixed, image, ["stages.0.branches.1.0"])
    with pytest.raises(ConfigError, match="Sequential shows no attention"):
        block_attention(nn.Sequential(nn.Conv2d(3, 4, 1)), image)
    with pytest.raises(ConfigError, match="deployed"):
        block_attention(deploy(network("cross_shaped")), image)
    with pytest.raises(ConfigError, match=r"give one image"):
        block_attention(mixed, torch.randn(2, 3, *IMAGE))


@pytest.mark.parametrize("token", [(-1, 0), (13, 0), (0, 9)])
def test_a_token_outside_the_map_is_reported_in_one_sentence(token: Token) -> None:
    [one, *_] = block_attention(network("global"), torch.randn(1, 3, *IMAGE))
    with pytest.raises(ConfigError, match="outside of the map, which has 13 rows and 9 columns"):
        one.of_token(token)
    with pytest.raises(ConfigError, match="pixel 49,0 is outside of the image, which has 49 rows"):
        one.of_pixel((49, 0))


def test_remarks_depend_on_the_weights() -> None:
    model = create_model("hrvit_nano")
    random, silent = remarks(model, trained=False)
    assert random.startswith("Random weights") and "attention does not reach the output" in silent
    first = next(module for module in model.modules() if isinstance(module, Attention))
    nn.init.ones_(cast(nn.BatchNorm1d, first.norm).weight)
    [some] = remarks(model, trained=True)
    assert "in 18 of 19 blocks" in some
    assert remarks(woken(model), trained=True) == ()


def test_half_precision_gives_maps_that_sum_to_one() -> None:
    model = network("window").bfloat16()
    [one, *_] = block_attention(model, torch.randn(1, 3, *IMAGE).bfloat16())
    assert isinstance(one, BlockAttention)
    np.testing.assert_allclose(one.of_all().sum(-1), 1, atol=1e-5)
