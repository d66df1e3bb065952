"""Variants of every part except attention, compared with their definitions on plain NCHW maps, and in networks."""

import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import reference_tensor
from test_space import check_counts
from torch import Tensor, nn

from hrvit_lab import HRViTConfig
from hrvit_lab.network import blocks, heads
from hrvit_lab.network.blocks import Attention, MixCFN, MixFFN, WeightedSum
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import _batch_norm_pairs, deploy
from hrvit_lab.network.model import HRViT

Weights = Mapping[str, Tensor]


def randomised(part: nn.Module) -> nn.Module:
    """The part in evaluation mode, with random BatchNorms and weights."""
    part.load_state_dict({key: reference_tensor(key, tuple(v.shape)) for key, v in part.state_dict().items()})
    for fusion in part.modules():
        if isinstance(fusion, WeightedSum):
            for weight in fusion.weights or ():
                weight.data = torch.linspace(1.5, -0.5, len(weight))
    return part.eval()


def weights_of(part: nn.Module) -> Weights:
    return dict(part.state_dict())


def linear(w: Weights, name: str, x_BCHW: Tensor) -> Tensor:
    """A linear as the equivalent 1×1 convolution."""
    return F.conv2d(x_BCHW, w[f"{name}.weight"].flatten(1)[:, :, None, None], w.get(f"{name}.bias"))


def depthwise(w: Weights, name: str, x_BCHW: Tensor, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x_BCHW, weight, w.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=len(weight))


def batch_norm(w: Weights, name: str, x_BCHW: Tensor) -> Tensor:
    mean, var, weight, bias = (
        w[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x_BCHW - mean) / (var + 1e-5).sqrt() * weight + bias


def layer_norm(w: Weights, name: str, x_BCHW: Tensor) -> Tensor:
    centred = x_BCHW - x_BCHW.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return normed * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def assert_same(x_BHWC: Tensor, expected_BCHW: Tensor) -> None:
    assert expected_BCHW.abs().max() > 1e-2
    torch.testing.assert_close(x_BHWC, expected_BCHW.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-4)


# -- feed-forward networks --------------------------------------------------------------------------------------------


def mixcfn(w: Weights, x: Tensor, a: int, b: int) -> Tensor:
    """Unsplit linears, with the hidden channels split between the convolutions."""
    first, second = linear(w, f"half{a}.fc1", x), linear(w, f"half{b}.fc1", x)
    mixed = torch.cat([depthwise(w, f"half{a}.conv", first), depthwise(w, f"half{b}.conv", second)], dim=1)
    fc2 = {
        "fc2.weight": torch.cat([w[f"half{k}.fc2.weight"] for k in (a, b)], dim=1),
        "fc2.bias": w[f"half{a}.fc2.bias"],
    }
    return linear(fc2, "fc2", F.gelu(mixed))


def hrformer(w: Weights, x: Tensor) -> Tensor:
    x = F.gelu(batch_norm(w, "bn1", linear(w, "conv1", x)))
    x = F.gelu(batch_norm(w, "bn2", depthwise(w, "conv2", x)))
    return F.gelu(batch_norm(w, "bn3", linear(w, "conv3", x)))


FFNS: dict[str, Callable[[Weights, Tensor], Tensor]] = {
    "mixcfn": lambda w, x: mixcfn(w, x, 3, 5),
    "mixcfn_3_7": lambda w, x: mixcfn(w, x, 3, 7),
    "mixcfn_5_7": lambda w, x: mixcfn(w, x, 5, 7),
    "mixffn": lambda w, x: linear(w, "fc2", F.gelu(depthwise(w, "conv", linear(w, "fc1", x)))),
    "mlp": lambda w, x: linear(w, "fc2", F.gelu(linear(w, "fc1", x))),
    "swiglu": lambda w, x: linear(w, "out", silu(linear(w, "gate", x)) * linear(w, "value", x)),
    "swiglu_conv": lambda w, x: linear(
        w, "out", silu(depthwise(w, "conv", linear(w, "gate", x))) * linear(w, "value", x)
    ),
    "hrformer": hrformer,
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", [name for name, make in blocks.FFNS.items() if make])
def test_ffn_equals_its_definition(name: str, grad: bool) -> None:
    make = blocks.FFNS[name]
    assert make is not None
    ffn = randomised(make(8, 2.75))
    x_BCHW = torch.randn(2, 8, 5, 9)
    with torch.set_grad_enabled(grad):  # without gradients, activations overwrite what they read
        assert_same(ffn(x_BCHW.permute(0, 2, 3, 1)), FFNS[name](weights_of(ffn), x_BCHW))


def test_hidden_widths_are_rounded_down() -> None:
    assert MixFFN(8, 2.4).fc1.weight.shape == (19, 8)


@pytest.mark.parametrize("tokens", ["few", "many"])
@pytest.mark.parametrize("kernels", [(3, 5), (3, 7), (5, 7)])
def test_the_deployed_mixcfn_equals_the_plain_one(kernels: tuple[int, int], tokens: str) -> None:
    ffn = randomised(MixCFN(8, 2, kernels))
    assert isinstance(ffn, MixCFN)
    x_BHWC = torch.randn(2, 33, 32, 8) if tokens == "many" else torch.randn(2, 5, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(ffn.served()(x_BHWC), ffn(x_BHWC), atol=1e-5, rtol=1e-4)


# -- shortcuts --------------------------------------------------------------------------------------------------------


def test_shortcuts_equal_their_definitions() -> None:
    x_BCHW, onto_BCHW = torch.randn(2, 2, 16, 5, 9)
    x_BHWC, onto_BHWC = x_BCHW.permute(0, 2, 3, 1), onto_BCHW.permute(0, 2, 3, 1)
    assert blocks.SHORTCUT["none"](16)(x_BHWC, onto_BHWC) is onto_BHWC
    full_rank = randomised(blocks.SHORTCUT["linear"](16))
    before = onto_BHWC.clone()
    assert_same(full_rank(x_BHWC, onto_BHWC), onto_BCHW + linear(weights_of(full_rank), "proj", x_BCHW))
    assert torch.equal(onto_BHWC, before)


# -- patch embeddings -------------------------------------------------------------------------------------------------

PATCH_EMBEDS: dict[str, Callable[[Weights, Tensor, int], Tensor]] = {
    "efficient": lambda w, x, stride: layer_norm(
        w, "norm", depthwise(w, "depthwise", linear(w, "pointwise", x), stride)
    ),
    "dense": lambda w, x, stride: layer_norm(
        w, "norm", F.conv2d(x, w["conv.weight"], w["conv.bias"], stride, padding=1)
    ),
    "none": lambda w, x, stride: linear(w, "conv", x)[:, :, ::stride, ::stride] if w else x,
}


@pytest.mark.parametrize(("c_in", "dim", "stride"), [(8, 8, 1), (8, 12, 1), (8, 8, 2), (12, 8, 2)])
@pytest.mark.parametrize("name", blocks.PATCH_EMBED)
def test_patch_embedding_equals_its_definition(name: str, c_in: int, dim: int, stride: int) -> None:
    embed = randomised(blocks.PATCH_EMBED[name](c_in, dim, stride))
    x_BCHW = torch.randn(2, c_in, 7, 9)
    y_BHWC = embed(x_BCHW.permute(0, 2, 3, 1))
    assert y_BHWC.shape == (2, -(-7 // stride), -(-9 // stride), dim)
    assert_same(y_BHWC, PATCH_EMBEDS[name](weights_of(embed), x_BCHW, stride))


# -- stems ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 32), (6, 31), (19, 30), (64, 33)])
@pytest.mark.parametrize(("name", "kernel", "margin"), [("conv7", 7, 3), ("conv7_cswin", 7, 2), ("patchify", 4, 0)])
def test_the_stem_equals_every_fourth_output_on_a_zero_padded_image(
    name: str, kernel: int, margin: int, height: int, width: int
) -> None:
    stem = randomised(blocks.STEM[name](3, 6))
    w = weights_of(stem)
    image = torch.randn(2, 3, height, width)
    rows, columns = -(-height // 4), -(-width // 4)
    sheet = torch.zeros(2, 3, 4 * rows + kernel, 4 * columns + kernel)
    sheet[:, :, margin : margin + height, margin : margin + width] = image
    y_BCHW = torch.empty(2, 6, rows, columns)
    for r in range(rows):
        for c in range(columns):
            seen = sheet[:, None, :, 4 * r : 4 * r + kernel, 4 * c : 4 * c + kernel]
            y_BCHW[:, :, r, c] = (seen * w["conv1.weight"]).sum((2, 3, 4)) + w["conv1.bias"]
    assert_same(stem(image), layer_norm(w, "norm", y_BCHW))


@pytest.mark.parametrize("name", blocks.STEM)
def test_every_stem_divides_the_size_by_four_rounded_up_and_has_conv1(name: str) -> None:
    stem = blocks.STEM[name](2, 6)
    assert isinstance(stem.conv1, nn.Conv2d) and stem.conv1.in_channels == 2
    for height, width in ((4, 7), (8, 9), (33, 30), (63, 61)):
        assert stem(torch.randn(1, 2, height, width)).shape == (1, -(-height // 4), -(-width // 4), 6)


# -- fusions ----------------------------------------------------------------------------------------------------------


def nearest(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    rows = [r * x_BCHW.shape[2] // height for r in range(height)]
    columns = [c * x_BCHW.shape[3] // width for c in range(width)]
    return x_BCHW[:, :, rows][:, :, :, columns]


def bilinear(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Pixels are areas: the centre of target pixel t is at (t + ½) · source / target − ½, clamped to the map."""

    def taps(source: int, target: int) -> Tensor:
        matrix = torch.zeros(target, source)
        for t in range(target):
            place = max((t + 0.5) * source / target - 0.5, 0)
            low = math.floor(place)
            high = min(low + 1, source - 1)
            matrix[t, low] += 1 - (place - low)
            matrix[t, high] += place - low
        return matrix

    return taps(x_BCHW.shape[2], height) @ x_BCHW @ taps(x_BCHW.shape[3], width).t()


def block_average(x_BCHW: Tensor, block: int) -> Tensor:
    height, width = x_BCHW.shape[2:]
    rows = [
        torch.stack([x_BCHW[:, :, r : r + block, c : c + block].mean((2, 3)) for c in range(0, width, block)], dim=-1)
        for r in range(0, height, block)
    ]
    return torch.stack(rows, dim=2)


UPSAMPLE = {"nearest": nearest, "bilinear": bilinear}


def down(w: Weights, name: str, x: Tensor, steps: int) -> Tensor:
    weight = w[f"{name}.0.weight"]
    assert weight.shape[-1] == 2**steps + 1
    x = batch_norm(w, f"{name}.1", F.conv2d(x, weight, None, 2**steps, 2**steps // 2, groups=len(weight)))
    return batch_norm(w, f"{name}.3", linear(w, f"{name}.2", x))


def paths(w: Weights, maps: list[Tensor], sizes: list[tuple[int, int]], upsample: str, feeds: Callable) -> list[Tensor]:
    """``feeds(source, target)`` says which paths exist."""
    fused = []
    for i, size in enumerate(sizes):
        total = torch.zeros(())
        for j, x in enumerate(maps):
            name = f"paths.{i}.{j}"
            if not feeds(j, i):
                assert not any(key.startswith(f"{name}.") for key in w)
            elif j == i:
                total = total + x
            elif j < i:
                total = total + down(w, name, x, i - j)
            else:
                total = total + UPSAMPLE[upsample](batch_norm(w, f"{name}.1", linear(w, f"{name}.0", x)), *size)
        fused.append(F.gelu(total))
    return fused


def weighted(w: Weights, maps: list[Tensor], sizes: list[tuple[int, int]], upsample: str) -> list[Tensor]:
    fused = []
    for i, size in enumerate(sizes):
        weights = w[f"weights.{i}"].clamp(min=0) if len(maps) > 1 else torch.ones(1)
        total = torch.zeros(())
        for j, x in enumerate(maps):
            if f"convs.{i}.{j}.weight" in w:
                x = linear(w, f"convs.{i}.{j}", x)
            if j < i:
                x = block_average(x, 2 ** (i - j))
            elif j > i:
                x = UPSAMPLE[upsample](x, *size)
            total = total + x * weights[j] / (weights.sum() + (1e-4 if len(maps) > 1 else 0))
        fused.append(F.gelu(total))
    return fused


@pytest.mark.parametrize("upsample", UPSAMPLE)
@pytest.mark.parametrize(
    ("dims_in", "dims_out"),
    [((6,), (6,)), ((6,), (6, 10)), ((6, 10, 6), (6, 10, 6)), ((6, 10, 8), (6, 10, 8, 6))],
)
@pytest.mark.parametrize(("name", "last"), [*((name, False) for name in blocks.FUSION), ("late", True)])
def test_fusion_equals_a_loop_over_sources(
    name: str, last: bool, dims_in: tuple[int, ...], dims_out: tuple[int, ...], upsample: str
) -> None:
    torch.manual_seed(0)
    fusion = randomised(blocks.FUSION[name](dims_in, dims_out, upsample, last))
    sizes = [(19, 13)]
    for _ in range(len(dims_out) - 1):
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))  # type: ignore[arg-type]
    maps = [torch.randn(2, c, *size) for c, size in zip(dims_in, sizes, strict=False)]
    newest = len(dims_in) - 1
    feeds = {
        "dense": lambda j, i: True,
        "sparse": lambda j, i: abs(i - j) <= 1 or (j == newest and i > j),
        "late": lambda j, i: last or j == i or (j == newest and i > j),
    }
    w = weights_of(fusion)
    if name == "weighted_sum":
        expected = weighted(w, maps, sizes, upsample)
    else:
        expected = paths(w, maps, sizes, upsample, feeds[name])
    tokens = [x.permute(0, 2, 3, 1) for x in maps]
    before = [x.clone() for x in tokens]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for ours, naive in zip(fusion(*tokens), expected, strict=True):
                assert_same(ours, naive)
    assert all(map(torch.equal, tokens, before))


def test_weights_of_a_weighted_sum_are_shares() -> None:
    """Doubling all weights changes almost nothing, and a negative weight removes its source."""
    fusion = blocks.WeightedSum((4, 4), (4, 4), "nearest")
    assert fusion.weights is not None and fusion.weights[0].tolist() == [1, 1]
    maps = [torch.randn(1, 8, 8, 4), torch.randn(1, 4, 4, 4)]
    with torch.no_grad():
        before = fusion(*maps)[0]
        fusion.weights[0].mul_(2)
        torch.testing.assert_close(fusion(*maps)[0], before, atol=1e-3, rtol=1e-3)
        fusion.weights[0].copy_(torch.tensor([3.0, -1.0]))
        torch.testing.assert_close(fusion(*maps)[0], F.gelu(maps[0]), atol=1e-3, rtol=1e-3)


# -- inside a network -------------------------------------------------------------------------------------------------

VARIANTS: list[tuple[str, Any]] = [
    *(("ffn", name) for name in blocks.FFNS),
    *(("shortcut", name) for name in blocks.SHORTCUT),
    *(("patch_embed", name) for name in blocks.PATCH_EMBED),
    *(("fusion", name) for name in blocks.FUSION),
    *(("upsample", name) for name in UPSAMPLE),
    *(("stem", name) for name in blocks.STEM),
    *((switch, False) for switch in ("parallel_conv", "attn_activation", "attn_batch_norm", "branch_norm")),
    ("topology", "pyramid"),
]
HEADS = [("head", name) for name in heads.HEAD]
TINY = HRViTConfig(
    depths=((1,), (1, 1), (1, 1, 2)), widths=(8, 8, 16), head_dims=4, window_sizes=(1, 2, 7), mlp_ratios=2,
    stem_width=8, num_classes=3, head_widths=2, head_features=8, segformer_width=8, upernet_width=8,
)  # fmt: skip


def tiny(field: str, value: Any) -> HRViT:
    """A network with that variant, whose attention has an effect."""
    shape = {"depths": ((1, 1, 2),)} if field == "topology" else {}
    model = build(TINY.replace(**shape, **{field: value}))
    for module in model.modules():
        if isinstance(module, Attention) and isinstance(module.norm, nn.BatchNorm1d):
            nn.init.ones_(module.norm.weight)
    return model


CENTRED = (
    # A norm's bias shifts whole channels; only 1×1 convolutions are between it and a BatchNorm, which removes the
    # shift.
    r"fusions\.\d\.paths\.(1\.0|2\.[01])\.1\.bias",
    r"stages\.2\.norms\.\d\.bias",
)
CENTRED_IN = {
    "hrformer": r".*\.ffn_norm\.bias",
    "attn_activation": r".*\.attn\.parallel_conv\.bias",
    "branch_norm": r"stages\.2\.branches\.([01]\.0|2\.1)\.ffn\.half3\.fc2\.bias",
}
"""What else is centred where that part is chosen, or left out."""


@pytest.mark.parametrize(("field", "name"), VARIANTS)
def test_every_parameter_has_a_gradient_on_odd_maps(field: str, name: Any) -> None:
    """33 × 47 tokens. The one exception is a bias whose effect the following BatchNorm removes."""
    torch.manual_seed(0)
    model = tiny(field, name).train().double()
    logits = model(torch.randn(2, 3, 131, 185, dtype=torch.float64))
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    centred = {
        f"{part_name}.{layer}.bias" for part_name, part in model.named_modules() for layer, _ in _batch_norm_pairs(part)
    }
    patterns = [*CENTRED, *(CENTRED_IN[choice] for choice in (field, name) if choice in CENTRED_IN)]
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        moves_nothing = key in centred or any(re.fullmatch(pattern, key) for pattern in patterns)
        assert (parameter.grad.abs().max() < 1e-12) == moves_nothing, key


@torch.no_grad()
@pytest.mark.parametrize(("field", "name"), VARIANTS + HEADS)
def test_odd_maps_give_equal_outputs_fused_or_not_and_exact_counts(field: str, name: Any) -> None:
    """33 × 47 tokens."""
    model = tiny(field, name)
    randomised(model)
    image = torch.rand(1, 3, 131, 185)
    torch.testing.assert_close(model(image), check_counts(model, image), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("field", "name"), VARIANTS)
@pytest.mark.parametrize(("height", "width"), [(67, 93), pytest.param(64, 64, marks=pytest.mark.slow)])
def test_deployed_and_bfloat16_networks_agree_with_the_plain_one(
    field: str, name: Any, height: int, width: int
) -> None:
    model = randomised(tiny(field, name))
    image = torch.randn(2, 3, height, width)
    served = deploy(model)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in served.modules())
    with torch.no_grad():
        expected = model(image)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(served(image), expected, atol=2e-5, rtol=1e-4)
        for form in (model, served):
            low = form.bfloat16()(image.bfloat16())
            assert low.dtype == torch.bfloat16
            assert (low.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_variants_are_exported() -> None:
    config = TINY.replace(
        ffn=("swiglu_conv", "hrformer", "mixcfn_5_7"), shortcut="linear", patch_embed="none", fusion="weighted_sum",
        stem="conv7_cswin", upsample="bilinear",
    )  # fmt: skip
    model = randomised(build(config))
    first, second = torch.randn(2, 1, 3, 45, 66)
    exported = torch.export.export(model, (first,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(second), model(second), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in blocks.FFNS if name != "none"])
def test_a_branch_needs_hidden_channels(name: str) -> None:
    with pytest.raises(ValueError, match=r"widths\[0\] = 8 with mlp_ratios\[0\] = 0.1: .*hidden channels.*use \d+"):
        TINY.replace(ffn=name, mlp_ratios=0.1)


def test_without_des_any_width_is_valid() -> None:
    """Every stage starts with branches of a width that DES would refuse, since 34 = 2 · 17."""
    with pytest.raises(ValueError, match="DES needs a width divisible by"):
        TINY.replace(widths=(34, 8, 16), head_dims=17)
    odd = TINY.replace(widths=(34, 8, 16), head_dims=(17, 4, 4), shortcut="none", stem="conv7", stem_width=7)
    sizes = [y.shape for y in build(odd).forward_features(torch.randn(1, 3, 64, 64))]
    assert [shape[1] for shape in sizes] == [34, 8, 16]
    assert all(a[2] == 2 * b[2] for a, b in pairwise(sizes))
