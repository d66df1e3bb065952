"""Contributions, statistics and rollout, compared with sums, loops over dense maps, and matrix products."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from test_attention import loud, tiny, woken
from test_insight_attention import IMAGE, network
from torch import nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.contributions import contributions
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.rollout import branch_rollout, network_rollout
from hrvit_lab.insight.statistics import attention_statistics
from hrvit_lab.insight.views_command import VIEWS, Subject
from hrvit_lab.network.blocks import Attention
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork

# -- contributions ----------------------------------------------------------------------------------------------------


def uneven(model: HRViT) -> HRViT:
    """Randomize statistics and weights of BatchNorms."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(cast(torch.Tensor, module.running_mean))
    return model.eval()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ["attention", "parallel convolution", "bias", "des", "ffn"]),
        ({"attention": "cswin", "shortcut": "linear"},
         ["attention", "parallel convolution", "bias", "linear shortcut", "ffn"]),
        ({"parallel_conv": False, "shortcut": "none", "ffn": "none", "attn_activation": False}, ["attention", "bias"]),
        ({"attention": "identity", "attn_batch_norm": False},
         ["attention", "parallel convolution", "bias", "des", "ffn"]),
    ],
)  # fmt: skip
def test_contributions_sum_to_the_residual_stream(changes: dict[str, object], parts: list[str]) -> None:
    model, image = uneven(build(tiny(**({"attention": "cross_shaped"} | changes)))), torch.randn(1, 3, *IMAGE)  # type: ignore[arg-type]
    found = contributions(model, image)
    names = [f"stages.0.branches.{branch}.{number}" for branch in (0, 1) for number in (0, 1)]
    assert [one.place.name for one in found] == names
    seen = capture(model, image, outputs=names, inputs=names)
    for one in found:
        assert list(one.parts) == parts
        np.testing.assert_array_equal(one.before, seen.inputs[one.place.name][0].detach().numpy())
        np.testing.assert_array_equal(one.after, seen.outputs[one.place.name][0].detach().numpy())
        np.testing.assert_allclose(one.before + sum(one.parts.values()), one.after, atol=2e-5)
        assert all(np.abs(part).max() > 1e-3 for part in one.parts.values())


@torch.no_grad()
def test_without_activation_contributions_have_a_closed_form() -> None:
    """The projection is then linear, so the contributions of attention and convolution are known in closed form."""
    model, image = uneven(build(tiny("window", attn_activation=False))), torch.randn(1, 3, *IMAGE)
    name = "stages.0.branches.1.0"
    [one] = contributions(model, image, [name])
    seen = capture(model, image, outputs=[f"{name}.attn.mixer", f"{name}.attn.parallel_conv"]).outputs
    attention = cast(Attention, model.get_submodule(f"{name}.attn"))
    norm = cast(nn.BatchNorm1d, attention.norm)
    scale = norm.weight / (cast(torch.Tensor, norm.running_var) + norm.eps).sqrt()
    terms = {
        "attention": seen[f"{name}.attn.mixer"][0][0],
        "parallel convolution": seen[f"{name}.attn.parallel_conv"][0].permute(1, 2, 0),
    }
    for part, x_HWC in terms.items():
        expected = x_HWC @ attention.proj.weight.T * scale
        np.testing.assert_allclose(one.parts[part], expected, atol=1e-5)
    bias = (attention.proj.bias - cast(torch.Tensor, norm.running_mean)) * scale + norm.bias
    np.testing.assert_allclose(one.parts["bias"], bias.expand(7, 5, -1), atol=1e-5)
    norms = [float(np.linalg.norm(one.parts["ffn"][y, x])) for y in range(7) for x in range(5)]
    assert one.norms["ffn"] == pytest.approx(np.mean(norms))
    assert one.shares["ffn"] == pytest.approx(one.norms["ffn"] / one.norms["stream"])


# -- statistics -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", ["cross_shaped", "window", "dilated_window", "spatial_reduction", "linear"])
def test_statistics_equal_those_of_loops_over_the_maps(variant: str) -> None:
    model = network(variant)
    for one in block_attention(model, torch.randn(1, 3, *IMAGE))[1::2]:
        side, (H, W), maps = 4 * 2**one.place.branch, one.size, one.of_all().astype(float)
        rows, columns = one.heads.key_size
        merged = 4 if variant == "spatial_reduction" else 1
        keys = [
            (np.mean(range(i * merged, min(H, i * merged + merged))) + 0.5,
             np.mean(range(j * merged, min(W, j * merged + merged))) + 0.5)
            for i in range(rows) for j in range(columns)
        ]  # fmt: skip
        found = attention_statistics(one)
        for head, map_nm in enumerate(maps):
            distance = entropy = possible = 0.0
            for number, map_m in enumerate(map_nm):
                y, x = number // W + 0.5, number % W + 0.5
                for weight, (i, j) in zip(map_m, keys, strict=True):
                    distance += weight * math.hypot(i - y, j - x) * side
                    entropy -= weight * math.log(weight) if weight else 0
                possible += math.log(int((map_m > 0).sum()))
            assert found.distance_px[head] == pytest.approx(distance / len(map_nm), rel=1e-4)
            assert found.entropy_nats[head] == pytest.approx(entropy / len(map_nm), rel=1e-4)
            assert found.max_entropy_nats[head] == pytest.approx(possible / len(map_nm), rel=1e-6)
        between = [
            np.abs(maps[a] - maps[b]).sum(-1).mean() / 2 for a in range(len(maps)) for b in range(len(maps)) if a != b
        ]
        assert found.head_diversity == pytest.approx(np.mean(between), rel=1e-4)
        assert not (found.entropy_share > 1).any()


def test_a_key_wider_than_the_map_is_located_at_its_centre() -> None:
    one = block_attention(network("spatial_reduction", 20), torch.randn(1, 3, *IMAGE))[0]
    distances = [math.hypot(y + 0.5 - 6.5, x + 0.5 - 4.5) * 4 for y in range(13) for x in range(9)]
    np.testing.assert_allclose(attention_statistics(one).distance_px, np.mean(distances), rtol=1e-5)


def test_uniform_attention_has_maximum_entropy_and_equal_heads_zero_diversity() -> None:
    model = build(tiny("cross_shaped", head_dims=2, window_sizes=3))
    for module in model.modules():
        if isinstance(module, Attention):
            nn.init.zeros_(cast(nn.Linear, module.mixer.to_qv).weight)
    one = block_attention(model, torch.randn(1, 3, *IMAGE))[0]
    found = attention_statistics(one)
    # 13 rows are 4 stripes of 3 and one of 1; 9 columns are 3 stripes of 3.
    horizontal = (12 * math.log(27) + math.log(9)) / 13
    np.testing.assert_allclose(found.max_entropy_nats, [horizontal] * 2 + [math.log(39)] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.entropy_share, 1, rtol=1e-5)
    single = build(tiny("window", head_dims=16))
    assert math.isnan(attention_statistics(block_attention(single, torch.randn(1, 3, *IMAGE))[0]).head_diversity)


# -- rollout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["cross_shaped", "shifted_window", "linear"])
def test_rollout_of_two_blocks_is_the_product_of_their_maps(variant: str) -> None:
    first, second = block_attention(network(variant), torch.randn(1, 3, *IMAGE))[:2]
    token = (11, 4)
    np.testing.assert_allclose(branch_rollout([second], token), second.of_token(token).mean(0), atol=1e-6)
    a, b = (one.of_all().mean(0) for one in (first, second))
    expected = (b @ (0.5 * np.eye(117) + 0.5 * a))[11 * 9 + 4].reshape(13, 9)
    np.testing.assert_allclose(branch_rollout([first, second], token), expected, atol=1e-6)
    half = 0.5 * np.eye(117)
    three = (b @ (half + 0.5 * a) @ (half + 0.5 * b))[11 * 9 + 4].reshape(13, 9)
    np.testing.assert_allclose(branch_rollout([second, first, second], token), three, atol=1e-6)
    np.testing.assert_allclose(
        branch_rollout([first, second], token, residual=0)[3], (b @ a)[11 * 9 + 4].reshape(13, 9)[3], atol=1e-6
    )


def test_the_view_has_the_rollout_of_every_branch_and_stage() -> None:
    """Of two blocks each, by a product of dense matrices; and that of the network is as without known attention."""
    model, image = network("cross_shaped"), torch.randn(1, 3, 64, 64)
    blocks = block_attention(model, image)
    pixels = np.zeros((64, 64, 3), np.uint8)
    subject = Subject(NamedNetwork("small", model, "random", trained=False), pixels, image, (41, 22))
    shown = VIEWS["rollout"](subject)
    assert list(shown.figures) == ["rollout", "branch_rollout"]
    assert set(shown.arrays) == {f"{stage}branch {branch}" for stage in ("", "stage 0, ") for branch in (0, 1)}
    for branch, stride in ((0, 4), (1, 8)):
        first, second = (one.of_all().mean(0) for one in blocks if one.place.branch == branch)
        token, side = (41 // stride, 22 // stride), 64 // stride
        expected = second @ (0.5 * np.eye(side * side) + 0.5 * first)
        expected = expected[token[0] * side + token[1]].reshape(side, side)
        np.testing.assert_allclose(shown.arrays[f"stage 0, branch {branch}"], expected, atol=1e-6)
        through = network_rollout(model, image, branch, token)
        np.testing.assert_allclose(shown.arrays[f"branch {branch}"], through, atol=1e-7)


def test_rollout_needs_blocks_of_one_branch() -> None:
    blocks = block_attention(network("global"), torch.randn(1, 3, *IMAGE))
    for given in (blocks[:0], blocks):
        with pytest.raises(ConfigError, match="give the blocks of one branch and stage"):
            branch_rollout(given, (0, 0))


def from_finer(fine: tuple[int, int], coarse: tuple[int, int]) -> np.ndarray:
    """The mean of the 2 × 2 tokens that a coarse token covers, by loops."""
    out = np.zeros((coarse[0] * coarse[1], fine[0] * fine[1]))
    for i in range(coarse[0]):
        for j in range(coarse[1]):
            inside = [(y, x) for y in (2 * i, 2 * i + 1) for x in (2 * j, 2 * j + 1) if y < fine[0] and x < fine[1]]
            for y, x in inside:
                out[i * coarse[1] + j, y * fine[1] + x] = 1 / len(inside)
    return out


def from_coarser(fine: tuple[int, int], coarse: tuple[int, int]) -> np.ndarray:
    """The nearest coarse token, by loops."""
    out = np.zeros((fine[0] * fine[1], coarse[0] * coarse[1]))
    for y in range(fine[0]):
        for x in range(fine[1]):
            out[y * fine[1] + x, (y * coarse[0] // fine[0]) * coarse[1] + x * coarse[1] // fine[1]] = 1
    return out


@torch.no_grad()
def test_rollout_through_the_network_is_a_product_of_matrices() -> None:
    """Two stages: stem → block → fusion to two branches, one block each → fusion, one block each."""
    fields = {"depths": ((1,), (1, 1), (1, 1)), "widths": (8, 16)}
    model = woken(build(tiny("cross_shaped", **fields))).eval()
    for module in model.modules():
        if isinstance(module, Attention):
            loud(module.mixer)
    image = torch.randn(1, 3, *IMAGE)
    one = {(b.place.stage, b.place.branch): b.of_all().mean(0) for b in block_attention(model, image)}
    mixed = {key: 0.5 * np.eye(len(map_nn)) + 0.5 * map_nn for key, map_nn in one.items()}
    fine, coarse = (13, 9), (7, 5)
    down, up = from_finer(fine, coarse), from_coarser(fine, coarse)
    stem = mixed[0, 0]
    second = mixed[1, 0] @ stem, mixed[1, 1] @ down @ stem
    third = (
        mixed[2, 0] @ (second[0] + up @ second[1]) / 2,
        mixed[2, 1] @ (down @ second[0] + second[1]) / 2,
    )
    for branch, token, number in ((0, (12, 3), 12 * 9 + 3), (1, (6, 4), 6 * 5 + 4)):
        found = network_rollout(model, image, branch, token)
        np.testing.assert_allclose(found, third[branch][number].reshape(fine), atol=1e-6)
        assert found.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="branch 2 does not exist; the network has branches 0 to 1"):
        network_rollout(model, image, 2, (0, 0))


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "weighted_sum", "upsample": "bilinear"},
        {"topology": "pyramid", "stem_width": 8, "attention": ("spatial_reduction", "global"), "head": "pool"},
    ],
)
def test_rollout_of_other_networks_sums_to_one(changes: dict[str, object]) -> None:
    model = build(tiny(**({"attention": "window"} | changes)))  # type: ignore[arg-type]
    for branch in (0, 1):
        found = network_rollout(model, torch.randn(1, 3, *IMAGE), branch, (2, 1))
        assert found.shape == (13, 9) and found.min() >= 0 and found.sum() == pytest.approx(1, abs=1e-5)
