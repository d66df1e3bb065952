"""Every attention variant: compared with loops over tokens written from its definition, and in whole networks."""

import copy
import math
import random
import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_cost import check_tools, live_ratio
from test_space import check_counts
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from hrvit_lab import HRViTConfig
from hrvit_lab.config import ConfigError
from hrvit_lab.network.blocks import ATTENTION, FFNS, Attention, WindowAttention, use_explicit_attention
from hrvit_lab.network.blocks.window import relative_bias
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT
from hrvit_lab.parts.attention import ATTENTION as COSTS
from hrvit_lab.parts.ops import sum_costs

DIM, HEAD_DIM = 8, 2
MAPS = [(7, 5, 3), (4, 6, 2), (2, 3, 4), (5, 1, 2), (3, 4, 1), (9, 2, 4)]
"""Height, width, window: windows that fit, that leave a rest, that are wider than one side or both."""

# -- which tokens a token may see, from the definitions ---------------------------------------------------------------

Token = tuple[int, int]
Sees = Callable[[Token, Token], bool]


def in_stripe(axis: int, w: int) -> Sees:
    return lambda a, b: a[axis] // w == b[axis] // w


def in_window(w: int) -> Sees:
    return lambda a, b: a[0] // w == b[0] // w and a[1] // w == b[1] // w


def in_shifted_window(w: int, sides: tuple[int, int]) -> Sees:
    """Window borders are half a window from the map's corner; a side that one window covers has no border."""

    def number(token: Token, axis: int) -> int:
        return (token[axis] - w // 2) // w if sides[axis] > w else 0

    return lambda a, b: all(number(a, axis) == number(b, axis) for axis in (0, 1))


def congruent(w: int, sides: tuple[int, int]) -> Sees:
    dilations = [math.ceil(side / w) for side in sides]
    return lambda a, b: all((a[axis] - b[axis]) % dilations[axis] == 0 for axis in (0, 1))


def everything(a: Token, b: Token) -> bool:
    return True


def tokens_of(x_HWC: Tensor) -> list[Token]:
    return [(y, x) for y in range(x_HWC.shape[0]) for x in range(x_HWC.shape[1])]


def attend_by_loop(
    q: Tensor, k: Tensor, v: Tensor, heads: int, sees: Sees, bias: Callable[[int, Token, Token], Tensor] | None = None
) -> Tensor:
    """(H, W, C) → (H, W, C), one token and one head at a time."""
    d = q.shape[-1] // heads
    out = torch.zeros_like(q)
    for a in tokens_of(q):
        seen = [b for b in tokens_of(k) if sees(a, b)]
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            logits = torch.stack([q[a][own] @ k[b][own] / math.sqrt(d) for b in seen])
            if bias is not None:
                logits = logits + torch.stack([bias(h, a, b) for b in seen])
            weights = logits.softmax(0)
            out[a][own] = sum((weights[i] * v[b][own] for i, b in enumerate(seen)), torch.zeros(d))
    return out


def convolve_by_loop(v: Tensor, conv: nn.Conv2d, may: Sees) -> Tensor:
    """A depthwise convolution in which each token has only the neighbours that it may read."""
    reach = conv.kernel_size[0] // 2
    out = torch.zeros_like(v)
    for a in tokens_of(v):
        out[a] = conv.bias.clone()  # type: ignore[union-attr]
        for b in tokens_of(v):
            dy, dx = b[0] - a[0], b[1] - a[1]
            if max(abs(dy), abs(dx)) <= reach and may(a, b):
                out[a] += conv.weight[:, 0, dy + reach, dx + reach] * v[b]
    return out


# -- every mixer by a loop: (mixer, x, window) → mixed ----------------------------------------------------------------


def cross_shaped(m: Any, x: Tensor, w: int) -> Tensor:
    q, v = m.to_qv(x).chunk(2, -1)
    return halves(q, v, v, w)


def halves(q: Tensor, k: Tensor, v: Tensor, w: int) -> Tensor:
    half = DIM // 2
    return torch.cat(
        [
            attend_by_loop(q[..., part], k[..., part], v[..., part], half // HEAD_DIM, in_stripe(axis, w))
            for axis, part in ((0, slice(0, half)), (1, slice(half, DIM)))
        ],
        -1,
    )


def cross_shaped_qkv(m: Any, x: Tensor, w: int) -> Tensor:
    q, k, v = m.to_qkv(x).chunk(3, -1)
    return halves(q, k, v, w)


def cswin(m: Any, x: Tensor, w: int) -> Tensor:
    v = m.to_qkv(x).chunk(3, -1)[2]
    rows, columns = v.chunk(2, -1)
    upright = copy.deepcopy(m.lepe_columns)  # its kernel is stored transposed
    upright.weight.copy_(m.lepe_columns.weight.transpose(2, 3))
    lepe = convolve_by_loop(rows, m.lepe_rows, in_stripe(0, w)), convolve_by_loop(columns, upright, in_stripe(1, w))
    return cross_shaped_qkv(m, x, w) + torch.cat(lepe, -1)


def plain(m: Any, x: Tensor, sees: Sees, w: int | None = None) -> Tensor:
    q, k, v = m.to_qkv(x).chunk(3, -1)

    def bias(h: int, a: Token, b: Token) -> Tensor:
        assert w is not None
        return m.relative_bias[h, a[0] - b[0] + w - 1, a[1] - b[1] + w - 1]

    return attend_by_loop(q, k, v, DIM // HEAD_DIM, sees, bias if w is not None else None)


def spatial_reduction(m: Any, x: Tensor, w: int) -> Tensor:
    merged = x
    if w > 1:
        rows, columns = (max(1, side // w) for side in x.shape[:2])
        merged = torch.zeros(rows, columns, DIM)
        for i, j in tokens_of(merged):
            total = m.reduce.bias
            for y, c in tokens_of(torch.empty(w, w, 1)):
                if i * w + y < x.shape[0] and j * w + c < x.shape[1]:  # else zero
                    total = total + m.reduce.weight[:, :, y, c] @ x[i * w + y, j * w + c]
            normed = (total - total.mean()) / (total.var(unbiased=False) + 1e-5).sqrt()
            merged[i, j] = normed * m.norm.weight + m.norm.bias
    k, v = m.to_kv(merged).chunk(2, -1)
    return attend_by_loop(m.to_q(x), k, v, DIM // HEAD_DIM, everything)


def linear(m: Any, x: Tensor, w: int) -> Tensor:
    """Token by token, in the quadratic order of products: the weight of token j for token i is softmax(q_i) ·
    softmax(k)_j."""
    q, k, v = (t.unflatten(-1, (-1, HEAD_DIM)) for t in m.to_qkv(x).chunk(3, -1))
    everyone = torch.stack([k[b].exp() for b in tokens_of(k)]).sum(0)
    out = torch.zeros_like(q)
    for a in tokens_of(q):
        for b in tokens_of(k):
            out[a] += (q[a].softmax(-1) * k[b].exp() / everyone).sum(-1, keepdim=True) * v[b]
    return out.flatten(2)


LOOPS: dict[str, Callable[[Any, Tensor, int], Tensor]] = {
    "cross_shaped": cross_shaped,
    "cross_shaped_qkv": cross_shaped_qkv,
    "cswin": cswin,
    "window": lambda m, x, w: plain(m, x, in_window(w), w),
    "shifted_window": lambda m, x, w: plain(m, x, in_shifted_window(w, (x.shape[0], x.shape[1])), w),
    "dilated_window": lambda m, x, w: plain(m, x, congruent(w, (x.shape[0], x.shape[1]))),
    "spatial_reduction": spatial_reduction,
    "global": lambda m, x, w: plain(m, x, everything),
    "linear": linear,
    "depthwise_conv": lambda m, x, w: convolve_by_loop(m.to_v(x), m.conv, everything),
    "identity": lambda m, x, w: m.to_v(x),
}


def loud(module: nn.Module) -> nn.Module:
    """Large weights, with which softmax is not uniform and every bias has an effect."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return module


def test_every_mixer_has_a_reference_loop() -> None:
    assert set(LOOPS) == set(ATTENTION) == set(COSTS)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "window"), MAPS)
@pytest.mark.parametrize("name", ATTENTION)
def test_a_mixer_matches_a_loop_over_tokens(name: str, height: int, width: int, window: int) -> None:
    mixer = loud(ATTENTION[name](DIM, HEAD_DIM, window))
    x_BHWC = torch.randn(2, height, width, DIM)
    expected = torch.stack([LOOPS[name](mixer, x_HWC, window) for x_HWC in x_BHWC])
    for fused in (True, False):
        for module in mixer.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused  # type: ignore[assignment]
        mixed, values = mixer(x_BHWC)
        torch.testing.assert_close(mixed, expected, atol=2e-5, rtol=1e-4)
        assert values.shape == x_BHWC.shape


@torch.no_grad()
def test_shifted_windows_equal_swins_rolled_and_masked_windows() -> None:
    """timm's block with the same weights, on a map that its window divides."""
    swin = SwinTransformerBlock(DIM, (8, 12), num_heads=DIM // HEAD_DIM, window_size=4, shift_size=2).eval()
    loud(swin.attn)
    swin.attn.proj.load_state_dict({"weight": torch.eye(DIM), "bias": torch.zeros(DIM)})
    ours = ATTENTION["shifted_window"](DIM, HEAD_DIM, 4)
    table = swin.attn.relative_position_bias_table.t().reshape(-1, 7, 7)
    qkv = {f"to_qkv.{key}": value for key, value in swin.attn.qkv.state_dict().items()}
    ours.load_state_dict({"relative_bias": table, **qkv})
    x = torch.randn(2, 8, 12, DIM)
    torch.testing.assert_close(ours(x)[0], swin._attn(x), atol=1e-5, rtol=1e-4)


def test_biases_are_stored_by_offset() -> None:
    table = torch.arange(2 * 7 * 7.0).view(2, 7, 7)
    bias = relative_bias(table, 2, 3)
    assert bias.shape == (2, 6, 6)
    assert bias[1, 0, 0] == table[1, 3, 3] and bias[0, 5, 0] == table[0, 4, 5] and bias[0, 2, 3] == table[0, 2, 5]


def test_blocks_of_shifted_windows_alternate() -> None:
    model = build(tiny("shifted_window", depths=((1,), (2, 1), (2, 3)), window_sizes=3))
    shifts = [
        [b.attn.mixer.shift for stage in model.stages if branch < len(stage.branches) for b in stage.branches[branch]]  # type: ignore[arg-type,index]
        for branch in (0, 1)
    ]
    assert shifts == [[0, 1, 0, 1, 0], [0, 1, 0, 1]]


# -- robustness -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ATTENTION)
def test_fused_equals_explicit_on_an_odd_map(name: str) -> None:
    attention = Attention(16, ATTENTION[name](16, 4, 7), batch_norm=False)
    loud(attention.mixer)
    x = torch.randn(2, 33, 47, 16)
    fused = attention(x)
    with use_explicit_attention(attention):
        explicit = attention(x)
    assert fused.abs().max() > 0.1
    torch.testing.assert_close(fused, explicit, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ATTENTION)
def test_values_outside_the_map_are_not_read(name: str) -> None:
    """A map that is a view of a larger one gives the same output for any values around it."""
    mixer = loud(ATTENTION[name](16, 4, 4))
    for height, width in ((7, 9), (3, 2)):
        around = torch.full((2, height + 5, width + 6, 20), math.nan)
        inside = around[:, 2 : 2 + height, 3 : 3 + width, 1:17]
        inside.copy_(torch.randn(inside.shape))
        expected, values = (t.clone() for t in mixer(inside.contiguous()))
        before = around.clone()
        mixed, seen = mixer(inside)
        torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(seen, values, atol=1e-5, rtol=1e-5)
        assert torch.equal(around.nan_to_num(7), before.nan_to_num(7))


@torch.no_grad()
@pytest.mark.parametrize("name", ATTENTION)
def test_mixers_run_in_half_precision_and_on_the_meta_device(name: str) -> None:
    attention = Attention(16, ATTENTION[name](16, 4, 3)).eval()
    nn.init.ones_(attention.norm.weight)  # type: ignore[arg-type]
    x = torch.randn(2, 7, 5, 16)
    exact = attention(x)
    meta = attention.to("meta")(x.to("meta"))
    assert meta.shape == x.shape and meta.device.type == "meta"
    torch.manual_seed(0)
    again = Attention(16, ATTENTION[name](16, 4, 3)).eval()
    nn.init.ones_(again.norm.weight)  # type: ignore[arg-type]
    for path in (True, False):
        half = again.bfloat16()
        for module in half.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = path  # type: ignore[assignment]
        out = half(x.bfloat16())
        assert out.dtype is torch.bfloat16
        torch.testing.assert_close(out.float(), exact, atol=0.05, rtol=0.05)


# -- in the network ---------------------------------------------------------------------------------------------------


def tiny(attention: str | tuple[str, ...], **changes: object) -> HRViTConfig:
    """Two branches of two blocks each."""
    fields = {
        "depths": ((2, 2),), "widths": (8, 16), "head_dims": 4, "window_sizes": 2, "mlp_ratios": 2, "stem_width": 4,
        "head_widths": (2, 4), "head_features": 8, "num_classes": 5, "attention": attention,
    }  # fmt: skip
    return HRViTConfig(**(fields | changes))


def woken(model: HRViT) -> HRViT:
    for module in model.modules():
        if isinstance(module, Attention) and isinstance(module.norm, nn.BatchNorm1d):
            nn.init.ones_(module.norm.weight)
    return model


NO_GRADIENT = (
    # A bias shifts a whole channel, and the following BatchNorm removes the shift.
    r"stem\.conv[12]\.bias",
    r"fusions\.0\.paths\.1\.0\.2\.bias",
    r"stages\.0\.branches\.\d\.\d\.attn\.proj\.bias",
    r"head\.downsamples\.0\.0\.bias",
    r"head\.features\.0\.bias",
    # The same is true of a norm's bias if only 1×1 convolutions are between them.
    r"fusions\.0\.paths\.1\.0\.1\.bias",
    r"stages\.0\.norms\.\d\.bias",
)
KEY_BIAS = {"to_qkv": slice(1, 2), "to_kv": slice(0, 1)}
"""A bias of the key adds the same to all scores of a query (of a channel, in linear attention): softmax ignores it."""


# A third of all pairs, in which every attention meets three FFNs at least; slow tests try the rest.
every_pair = pytest.mark.parametrize(
    ("attention", "ffn"),
    [
        pytest.param(attention, ffn, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, attention in enumerate(ATTENTION)
        for j, ffn in enumerate(FFNS)
    ],
)


@every_pair
def test_every_pair_of_variants_trains_for_one_step(attention: str, ffn: str) -> None:
    model = woken(build(tiny(attention, ffn=ffn))).double()
    image = torch.randn(2, 3, 45, 67, dtype=torch.float64)
    F.cross_entropy(model(image), torch.tensor([1, 3])).backward()
    silent = set()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if parameter.grad.abs().max() < 1e-12:
            silent.add(name)
        layer = name.split(".")[-2]
        if name.endswith("bias") and layer in KEY_BIAS and attention != "cross_shaped":
            parts = parameter.grad.chunk(3 if layer == "to_qkv" else 2)
            still = [i for i, part in enumerate(parts) if part.abs().max() < 1e-12]
            assert still == list(range(3))[KEY_BIAS[layer]], name
    patterns = (*NO_GRADIENT, r".*\.ffn_norm\.bias") if ffn == "hrformer" else NO_GRADIENT
    expected = {
        name for name, _ in model.named_parameters() if any(re.fullmatch(pattern, name) for pattern in patterns)
    }
    assert silent == expected
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
@every_pair
def test_every_pair_of_variants_runs_on_an_odd_map_and_counts_exactly(attention: str, ffn: str) -> None:
    """33 × 47 tokens."""
    model = woken(build(tiny(attention, ffn=ffn, window_sizes=7))).eval()
    for module in model.modules():
        if isinstance(module, Attention):
            loud(module.mixer)
    image = torch.rand(1, 3, 131, 187)
    explicit = check_counts(model, image)
    torch.testing.assert_close(model(image), explicit, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTION)
def test_deployed_outputs_equal_those_of_the_plain_model(attention: str) -> None:
    model = woken(build(tiny(attention)))
    for _ in range(3):
        model(torch.randn(4, 3, 45, 67))  # statistics other than the initial ones
    image = torch.randn(2, 3, 45, 67)
    expected = model.eval()(image)
    torch.testing.assert_close(deploy(model)(image), expected, atol=1e-5, rtol=1e-4)


FOURS = [("cross_shaped_qkv", "cswin", "window", "identity"), ("shifted_window", "dilated_window", "global", "linear"),
         ("spatial_reduction", "depthwise_conv", "cross_shaped", "window")]  # fmt: skip
FOURS_ONE_QUICK = [FOURS[0], *(pytest.param(four, marks=pytest.mark.slow) for four in FOURS[1:])]


def test_every_variant_is_exported() -> None:
    assert {name for four in FOURS for name in four} == set(ATTENTION)


@torch.no_grad()
@pytest.mark.parametrize("four", FOURS_ONE_QUICK, ids=" ".join)
def test_exported_graphs_agree(four: tuple[str, ...]) -> None:
    sizes = {"depths": ((2, 2, 2, 2),), "widths": (8, 8, 16, 16), "head_widths": 2}
    model = woken(build(tiny(four, **sizes))).eval()
    exported = torch.export.export(model, (torch.randn(2, 3, 45, 67),)).module()
    image = torch.randn(2, 3, 45, 67)
    torch.testing.assert_close(exported(image), model(image), atol=1e-5, rtol=1e-4)


# -- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTION)
def test_counts_are_exact(attention: str) -> None:
    """33 × 47 tokens; a map smaller than the window; none of it square."""
    for window, resolution in ((7, (131, 187)), (8, (21, 29)), (1, (37, 51)), (4, (9, 99))):
        model = build(tiny(attention, window_sizes=window, head_dims=16)).eval()
        check_counts(model, torch.rand(1, 3, *resolution))


@pytest.mark.parametrize("attention", ATTENTION)
def test_peak_memory_is_predicted(attention: str) -> None:
    rng = random.Random(attention)
    for window in (1, 3, 5, 8):
        config = tiny(attention, window_sizes=window, head_dims=rng.choice((2, 4)), ffn="none", head="none")
        size = rng.randrange(33, 121, 2), rng.randrange(33, 121, 2)
        everything, maps = live_ratio(config, size, rng.choice((1, 2, 5)), "float32")
        assert everything == pytest.approx(1, abs=0.15) and maps == pytest.approx(1, abs=0.15), (config, size)


@pytest.mark.parametrize(
    ("attention", "exact", "padded"),
    [
        ("window", [8 * 8, 8 * 2, 2 * 8, 2 * 2], [64] * 4),
        ("shifted_window", [4 * 4, 4 * 6, 6 * 4, 6 * 6], [64] * 4),
        ("dilated_window", [25] * 4, [64] * 4),
        ("global", [100], [100]),
        ("cswin", [80, 20], [80, 80]),
    ],
)
def test_products_against_hand_computation(attention: str, exact: Iterable[int], padded: Iterable[int]) -> None:
    """Window 8 on a 10 × 10 map: each token attends to all tokens of its window. Both halves of CSWin have equal
    counts."""
    total = sum_costs(c for c in COSTS[attention].cost(16, 4, 8, 10, 10) if c.operator == "attention")
    assert total.macs == sum(2 * 16 * n**2 for n in exact)
    assert total.macs_padded == sum(2 * 16 * n**2 for n in padded)


@pytest.mark.parametrize("four", FOURS_ONE_QUICK, ids=" ".join)
def test_tools_say_what_is_predicted(four: tuple[str, ...]) -> None:
    changes = {"depths": ((2, 1, 1, 1),), "widths": 8, "head_widths": 2, "ffn": "none", "head": "none"}
    check_tools(tiny(four, **changes, window_sizes=3), (45, 67))


def test_products_of_other_variants_against_hand_computation() -> None:
    """Patches of 4 × 4 on a 10 × 9 map: 2 × 2 whole ones. Linear attention: a 4 × 4 matrix for each of 4 heads."""
    [reduced] = [c for c in COSTS["spatial_reduction"].cost(16, 4, 4, 10, 9) if c.operator == "attention"]
    assert (reduced.macs, reduced.activations) == (2 * 16 * 90 * 4, 4 * 90 * 4 + 16 * 90)
    assert (reduced.inputs, reduced.outputs) == (16 * 90 + 2 * 16 * 4, 16 * 90)
    [summed] = [c for c in COSTS["linear"].cost(16, 4, 4, 10, 9) if c.operator == "attention"]
    assert (summed.macs, summed.activations) == (2 * 4 * (90 * 4 * 4), 4 * 4 * 4 + 16 * 90)


# -- the config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["window", "global", "linear", "spatial_reduction", "dilated_window"])
def test_a_width_without_whole_heads_is_reported_in_one_sentence(attention: str) -> None:
    with pytest.raises(
        ConfigError, match=r"widths\[1\] = 24 with head_dims\[1\] = 16: the width must be a multiple of"
    ) as e:
        tiny(attention, widths=(8, 24), head_dims=16)
    assert "use 16 or 32" in str(e.value)
    assert WindowAttention(8, 16, 2).num_heads == 1  # a narrower width is one head


@pytest.mark.parametrize(
    ("attention", "same", "different"),
    [
        ("global", {"window_sizes": 5}, {"head_dims": 2}),
        ("linear", {"window_sizes": 5}, {"head_dims": 2}),
        ("identity", {"window_sizes": 5, "head_dims": 2}, {"widths": (8, 8)}),
        ("depthwise_conv", {"window_sizes": 5, "head_dims": 2}, {"widths": (8, 8)}),
        ("window", {"widths": (8, 16)}, {"window_sizes": 5}),
        ("cswin", {"widths": (8, 16)}, {"window_sizes": 5}),
    ],
)
def test_identity_contains_only_settings_that_matter(attention: str, same: dict, different: dict) -> None:
    config = tiny(attention)
    assert config.replace(**same).id == config.id != config.replace(**different).id
    assert len({tiny(name).id for name in ATTENTION}) == len(ATTENTION)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ATTENTION)
def test_memory_around_a_map_has_no_influence(name: str, fused: bool) -> None:
    """33 × 47 tokens do not fill all windows. The memory behind each row and behind the last row, where padding would
    be, is NaN."""
    mixer = ATTENTION[name](16, 8, 4).eval()
    around_BHWC = torch.full((2, 36, 48, 16), torch.nan)
    x_BHWC = around_BHWC[:, :33, :47]
    x_BHWC.copy_(torch.randn(x_BHWC.shape))
    with torch.no_grad(), nullcontext() if fused else use_explicit_attention(mixer):
        for output, expected in zip(mixer(x_BHWC), mixer(x_BHWC.contiguous()), strict=True):
            assert expected.isfinite().all()
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
