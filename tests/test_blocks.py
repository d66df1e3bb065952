"""Every part compared with a naive loop or a hand count."""

import copy
import itertools
import math
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab import PRESETS, create_model
from hrvit_lab import parts as cost
from hrvit_lab.config import TABLES
from hrvit_lab.network import blocks, heads
from hrvit_lab.network.blocks import DES, Attention, CrossShaped, use_explicit_attention
from hrvit_lab.network.blocks.des import bias_of_left
from hrvit_lab.network.blocks.stripes import stripe_attention
from hrvit_lab.network.blocks.tokens import depthwise


def naive_stripes(q: Tensor, v: Tensor, stripe: int, num_heads: int) -> Tensor:
    """Token by token: every token attends to the tokens of its stripe."""
    B, H, W, C = q.shape
    d = C // num_heads
    out = torch.zeros_like(q)
    for b in range(B):
        for y in range(H):
            top = y // stripe * stripe
            rows = range(top, min(top + stripe, H))
            for x in range(W):
                for head in range(num_heads):
                    channels = slice(head * d, (head + 1) * d)
                    keys = torch.stack([v[b, r, c, channels] for r in rows for c in range(W)])
                    weights = (keys @ q[b, y, x, channels] / math.sqrt(d)).softmax(0)
                    out[b, y, x, channels] = weights @ keys
    return out


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("height", "width", "stripe"), [(5, 3, 2), (4, 4, 4), (3, 5, 7), (6, 2, 1)])
def test_stripes_match_a_loop_over_tokens(height: int, width: int, stripe: int, fused: bool) -> None:
    q, v = torch.randn(2, 2, height, width, 8)
    expected = naive_stripes(q, v, stripe, num_heads=2)
    torch.testing.assert_close(stripe_attention((q, v), stripe, 2, fused=fused), expected, atol=1e-5, rtol=1e-5)


def test_attention_depends_only_on_its_row_and_column_stripes() -> None:
    attention = Attention(8, CrossShaped(8, 4, 2), parallel_conv=False, batch_norm=False)
    x = torch.randn(1, 6, 6, 8, requires_grad=True)
    attention(x)[0, 2, 3].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(-1) > 0
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:4] = True  # the horizontal stripe of row 2
    expected[:, 2:4] = True  # the vertical stripe of column 3
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("name", blocks.ATTENTION)
def test_fused_equals_explicit(name: str) -> None:
    mixer = blocks.ATTENTION[name](16, 4, 3)
    x = torch.randn(2, 7, 5, 16)
    fused, _ = mixer(x)
    with use_explicit_attention(mixer):
        explicit, _ = mixer(x)
    assert fused.abs().max() > 1e-3
    torch.testing.assert_close(fused, explicit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dim", [8, 24, 32, 240])
def test_des_equals_its_kronecker_definition(dim: int) -> None:
    des = DES(dim)
    with torch.no_grad():
        for linear in (des.right, des.left):
            linear.bias.zero_()
    x = torch.randn(1, 2, 3, dim)
    # GELU is between the two factors; for a large positive input it is the identity.
    with torch.no_grad():
        des.right.weight.abs_()
        des.left.weight.abs_()
    x = x.abs() * 100
    dense = torch.kron(des.left.weight, des.right.weight)
    torch.testing.assert_close(des(x, torch.zeros_like(x)), x @ dense.t(), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("dim", [8, 32, 128, 240])
def test_des_adds_its_output_to_a_given_tensor(dim: int) -> None:
    des = DES(dim)
    x, onto = torch.randn(2, 2, 3, 5, dim)
    before = onto.clone()
    matrix = x.unflatten(-1, (des.k, des.p))
    hidden = F.gelu(matrix @ des.right.weight.t() + des.right.bias)
    expected = onto + (des.left.weight @ hidden + des.left.bias[:, None]).flatten(-2)
    torch.testing.assert_close(des(x, onto), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(onto, before)
    served = DES(dim)
    served.load_state_dict(des.state_dict())
    torch.testing.assert_close(served.served()(x, onto + bias_of_left(des)), expected, atol=1e-5, rtol=1e-5)


def test_tables_of_modules_and_costs_have_the_same_variants() -> None:
    modules: dict[str, Mapping[str, object]] = {
        "attention": blocks.ATTENTION,
        "ffn": blocks.FFNS,
        "shortcut": blocks.SHORTCUT,
        "patch_embed": blocks.PATCH_EMBED,
        "fusion": blocks.FUSION,
        "stem": blocks.STEM,
        "head": heads.HEAD,
    }
    assert {field: set(table) for field, table in modules.items()} == {
        field: set(table) for field, table in TABLES.items()
    }
    assert set(cost.ATTENTION) == set(blocks.ATTENTION)


def test_attention_is_zero_at_initialization_and_can_be_trained() -> None:
    """The attention's BatchNorm has weight zero at first, so no gradient reaches the layers before it."""
    model = create_model("hrvit_nano", num_classes=4)
    image = torch.randn(2, 3, 64, 64)
    model(image).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent and all(".attn." in name or ".attn_norm." in name for name in silent)
    for module in model.modules():
        if isinstance(module, Attention) and isinstance(module.norm, nn.BatchNorm1d):
            nn.init.ones_(module.norm.weight)
    model.zero_grad()
    model(image).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    # A bias before a BatchNorm has no effect; every other parameter now has a gradient.
    still = [name for name, p in model.named_parameters() if p.grad.abs().max() < 1e-9]  # type: ignore[union-attr]
    assert all(name.endswith("bias") for name in still), still


@pytest.mark.parametrize("shape", [(16, 3, 3, 8), (16, 4)])
def test_stochastic_depth_equals_that_of_timm(shape: tuple[int, ...]) -> None:
    ours, theirs, x = blocks.drop_path.DropPath(0.3), timm.layers.DropPath(0.3), torch.randn(shape)
    torch.manual_seed(7)
    y = ours(x)
    torch.manual_seed(7)
    torch.testing.assert_close(y, theirs(x), rtol=0, atol=0)
    assert 0 < int((y == 0).flatten(1).all(1).sum()) < 16
    assert ours.eval()(x) is x


def test_checkpointing_changes_memory_but_neither_gradients_nor_statistics() -> None:
    image = torch.randn(4, 3, 64, 64)
    states, grads = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = create_model("hrvit_nano", num_classes=4, grad_checkpointing=recompute)
        model(image).square().mean().backward()
        states.append({k: v for k, v in model.state_dict().items() if "num_batches" not in k})
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in grads[0].items():
        torch.testing.assert_close(gradient, grads[1][name], atol=1e-6, rtol=1e-4)
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-5, rtol=1e-4)
    model.set_grad_checkpointing(False)
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert all(momentum == pytest.approx(0.1) for momentum in momenta)


def test_presets_run_on_any_shape() -> None:
    model = create_model("hrvit_nano", num_classes=3).eval()
    for height, width in ((32, 32), (33, 200), (97, 41)):
        with torch.no_grad():
            assert model(torch.randn(1, 3, height, width)).shape == (1, 3)
    with pytest.raises(ValueError, match="too small"):
        model(torch.randn(1, 3, 31, 64))
    assert PRESETS["hrvit_nano"].num_classes == 1000  # building a network does not change its preset


@pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [(5, 1, (9, 4)), (7, 1, (9, 4)), (5, 1, (4, 9)), (3, 1, (2, 2)), (3, 1, (1, 1)), (3, 2, (2, 3)), (5, 4, (4, 4)),
     (9, 8, (8, 8))],
)  # fmt: skip
def test_depthwise_gradients_equal_those_of_the_library(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """In the cases in which the library's own gradient is slow: wide kernels, and maps with fewer rows than the
    kernel."""
    conv = depthwise(6, kernel, stride=stride).double()
    plain = nn.Conv2d(6, 6, kernel, stride=stride, padding=kernel // 2, groups=6).double()
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    gradients = [torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters())) for layer in (conv, plain)]
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected)
    assert "FastGradient" in type(conv(x).grad_fn).__name__ and "FastGradient" not in str(plain(x).grad_fn)
    torch.testing.assert_close(*(layer(x) for layer in (conv, plain)))
    assert type(conv) is nn.Conv2d and torch.autograd.gradcheck(conv, (x,), fast_mode=True)
    if size == (2, 2):
        assert torch.autograd.gradgradcheck(conv, (x,))


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_depthwise_gradients_on_small_maps_equal_those_of_the_library(kernel: int) -> None:
    """Maps with fewer rows or columns than the kernel, or than half of it."""
    conv = depthwise(2, kernel).double()
    plain = nn.Conv2d(2, 2, kernel, padding=kernel // 2, groups=2).double()
    plain.load_state_dict(conv.state_dict())
    for height, width in itertools.product((1, 2, 3, 4, 6, 10), repeat=2):
        x = torch.randn(2, 2, height, width, dtype=torch.float64, requires_grad=True)
        gradients = [torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters())) for layer in (conv, plain)]
        for own, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(own, expected)


def test_fast_cases_use_the_gradient_of_the_library() -> None:
    x = torch.randn(1, 6, 8, 8)
    for kernel, stride in ((3, 1), (3, 2), (5, 4)):
        assert "FastGradient" not in type(depthwise(6, kernel, stride=stride)(x).grad_fn).__name__


@pytest.mark.parametrize("changes", [{"stride": (2, 2)}, {"dilation": (2, 2), "padding": (4, 4)}, {"padding": (0, 0)}])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_depthwise_convolution_respects_later_changes_of_its_settings(changes: dict[str, Any], kernel: int) -> None:
    """As when a network is converted to another output stride; also for a copy."""
    conv, plain = depthwise(4, kernel), nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4)
    plain.load_state_dict(conv.state_dict())
    copied, pickled = copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))
    for x in (torch.randn(1, 4, 8, 8), torch.randn(4, 8, 8)):
        for layer in (conv, plain, copied, pickled):
            for name, value in changes.items():
                setattr(layer, name, value)
        for layer in (conv, copied, pickled):
            torch.testing.assert_close(layer(x), plain(x))


def test_gradients_of_single_samples_by_vmap() -> None:
    conv, x = depthwise(4, 5), torch.randn(3, 1, 4, 6, 6)

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, weights, image).square().sum()

    weights = {name: parameter.detach() for name, parameter in conv.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    for number in range(3):
        expected = torch.func.grad(loss)(weights, x[number])
        for name in weights:
            torch.testing.assert_close(each[name][number], expected[name])


def test_a_wide_depthwise_convolution_in_low_precision_and_half_frozen() -> None:
    conv = depthwise(4, 5).bfloat16()
    x = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)
    conv(x).float().sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.dtype == torch.bfloat16 and x.grad is None
    with torch.autocast("cpu"):
        assert copy.deepcopy(conv).float()(x.float()).dtype == torch.bfloat16
    conv.weight.requires_grad_(False)
    assert "FastGradient" not in type(conv(x).grad_fn).__name__
