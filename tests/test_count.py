"""Counts compared with hand counts, other counters and published figures; operators of unknown cost are errors."""

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from operators import continued_outputs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab import PRESETS, ConfigError, HRViTConfig, count, create_model
from hrvit_lab.config import with_branches
from hrvit_lab.cost import count as counting
from hrvit_lab.cost.count import UncountedOperator
from hrvit_lab.cost.dispatch import dispatch_count, no_fast_path
from hrvit_lab.network.blocks import CrossShaped, use_explicit_attention
from hrvit_lab.network.blocks.stem import TwoConvStem
from hrvit_lab.network.deploy import deploy

SMALL = HRViTConfig(
    depths=((1,), (1, 1)), widths=8, head_dims=4, window_sizes=2, mlp_ratios=2, stem_width=8, head_widths=4,
    head_features=16,
)  # fmt: skip


def test_a_hand_count() -> None:
    """One stage, one branch, one block at 32×32: 8×8 tokens, width 8, everything by hand."""
    config = HRViTConfig(
        depths=((1,),),
        widths=8,
        head_dims=4,
        window_sizes=2,
        mlp_ratios=2,
        stem_width=4,
        head="none",
        in_chans=3,
    )
    n = 8 * 8
    stem = 3 * 2 * 9 * 256 + 2 * 4 * 9 * n
    embed = 4 * 8 * n + 8 * 9 * n
    projections = 8 * 16 * n + 8 * 8 * n
    # each half, 4 channels: 4 stripes of 16 tokens, two products of 16 × 16 × 4
    attention = 2 * (4 * 2 * 16 * 16 * 4)
    parallel = 8 * 9 * n
    des = n * (2 * 4 * 4 + 4 * 2 * 2)  # p = 4 on k = 2 rows, k = 2 on p = 4 rows
    ffn = 8 * 16 * n + 8 * 9 * n + 8 * 25 * n + 16 * 8 * n
    counts = count(config, 32)
    assert counts.macs == stem + embed + projections + attention + parallel + des + ffn
    parts = counts.table("part").set_index("part").macs
    assert parts["stem"] == stem and parts["patch embedding"] == embed and parts["attention products"] == attention
    assert parts["attention projection"] == projections and parts["des"] == des and parts["ffn"] == ffn
    params = (3 * 2 * 9 + 2) + 4 + (2 * 4 * 9 + 4) + 8  # stem
    params += (4 * 8 + 8) + (8 * 9 + 8) + 16  # patch embedding
    params += 16 + (8 * 16 + 16) + (8 * 9 + 8) + (64 + 8) + 16 + (16 + 4) + (4 + 2)  # attention and DES
    params += 16 + (8 * 16 + 16) + (8 * 9 + 8) + (8 * 25 + 8) + (16 * 8 + 8) + 16  # ffn and the last norm
    assert counts.params == params
    # scores of one head of 4 channels per half, 4 stripes of 16², and 8 channels of output
    assert counts.table("part").set_index("part").activations["attention products"] == 2 * 4 * 256 + 8 * n


def test_padded_windows_against_hand_computation() -> None:
    """Window 7 on a 10×10 map: 7 + 3 rows, padded to 14."""
    config = HRViTConfig(
        depths=((1,),), widths=16, head_dims=8, window_sizes=7, mlp_ratios=2, stem_width=4, head="none"
    )
    attention = count(config, 40).table("operator").set_index("operator").loc["attention"]
    assert attention.macs == 2 * (2 * 8 * (70**2 + 30**2))
    assert attention.macs_padded == 2 * (2 * 8 * 2 * 70**2)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("hrvit_nano", (97, 161)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (
            ("hrvit_nano", (224, 224)), ("hrvit_b1", (224, 224)), ("hrvit_b1", (97, 161)),
        )),
    ],
)  # fmt: skip
def test_closed_form_counts_equal_those_of_dispatched_operators(name: str, resolution: tuple[int, int]) -> None:
    closed = count(PRESETS[name], resolution)
    with torch.device("meta"):
        model = create_model(name)
    dispatched = dispatch_count(model, resolution)
    assert (closed.params, closed.macs, closed.activations + continued_outputs(closed)) == (
        dispatched.params,
        dispatched.macs,
        dispatched.activations,
    )
    ours, theirs = (c.table("operator").set_index("operator").macs for c in (closed, dispatched))
    for operator in ("convolution", "linear", "attention"):
        assert ours[operator] == theirs[operator]


@pytest.mark.parametrize("by", ["operator", "branch", "stage", "part"])
def test_every_grouping_sums_to_the_totals(by: str) -> None:
    counts = count(PRESETS["hrvit_b2"], 256)
    table = counts.table(by)
    assert table.macs.sum() == counts.macs and table.params.sum() == counts.params
    assert table.macs_padded.sum() == counts.macs_padded and table.activations.sum() == counts.activations


def test_an_unknown_grouping_is_an_error() -> None:
    with pytest.raises(ValueError, match="use operator, branch, stage or part"):
        count(PRESETS["hrvit_nano"]).table("layer")


@pytest.mark.parametrize(
    ("name", "params_m", "gmacs", "activations_m"),
    [  # as timm's own results tables give them at 224
        ("resnet50", 25.56, 4.11, 11.11),
        ("swin_tiny_patch4_window7_224", 28.29, 4.51, 17.06),
        pytest.param("hrnet_w18", 21.30, 4.32, 16.31, marks=pytest.mark.slow),
    ],
)
def test_any_timm_model_is_counted(name: str, params_m: float, gmacs: float, activations_m: float) -> None:
    with torch.device("meta"):
        counts = count(timm.create_model(name), 224)
    assert counts.params / 1e6 == pytest.approx(params_m, abs=0.006)
    assert counts.macs / 1e9 == pytest.approx(gmacs, rel=0.02)  # theirs adds norms and pooling
    assert counts.activations / 1e6 == pytest.approx(activations_m, rel=0.01)


def test_an_operator_of_unknown_cost_is_an_error() -> None:
    class Spectral(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    with pytest.raises(UncountedOperator, match="fft"):
        count(Spectral(), 32)


def test_a_changed_model_is_counted_as_it_is() -> None:
    plain, served = create_model(SMALL), deploy(create_model(SMALL))
    assert count(served, 64).params == sum(p.numel() for p in served.parameters()) != count(plain, 64).params
    backbone = create_model(SMALL)
    backbone.prune_intermediate_layers(1)
    assert count(backbone, 64).params == sum(p.numel() for p in backbone.parameters())
    assert count(backbone, 64).macs == count(create_model(SMALL.replace(head="none")), 64).macs


# -- every kind of product, by hand -----------------------------------------------------------------------------------


class After(nn.Module):
    """A 1×1 convolution from 3 to 8 channels on 8 × 8 pixels, and an operator after it; the tokens are (B, 64, 8)."""

    def __init__(self, then: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)
        self.parts = nn.ModuleList(modules)
        self.then = then

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.then(self.conv(x_BCHW), *self.parts)


def tokens(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.flatten(2).transpose(1, 2)


def by_heads(x_BCHW: Tensor, heads: int = 2) -> Tensor:
    """(B, 8, H, W) → (B, heads, 64, 4)."""
    return tokens(x_BCHW)[..., : 4 * heads].unflatten(2, (heads, 4)).transpose(1, 2)


def costs_after(then: Callable[..., Tensor], *modules: nn.Module) -> tuple[int, int, int]:
    """MACs, activations and moved elements of the operator after the convolution."""
    totals = count(After(then, *modules), 8).totals
    return totals.macs - 64 * 3 * 8, totals.activations - 64 * 8, totals.moved - 64 * 3 - 64 * 8


sdpa = F.scaled_dot_product_attention
SCORES, PRODUCTS, MAPS = 2 * 64 * 64, 2 * 2 * 64 * 64 * 4, 4 * 64 * 8


@pytest.mark.parametrize(
    ("attend", "heads", "unread"),
    [
        (lambda q, k, v: sdpa(q, k, v), 2, 0),
        (lambda q, k, v: sdpa(query=q, key=k, value=v), 2, 0),
        (lambda q, k, v: sdpa(q, k, v, torch.ones(64, 64, dtype=torch.bool, device="meta").tril()), 2, 0),
        (lambda q, k, v: sdpa(q, k, v, attn_mask=torch.zeros(2, 64, 64, device="meta")), 2, 0),
        (lambda q, k, v: sdpa(q, k, value=v, is_causal=True), 2, 0),
        (lambda q, k, v: sdpa(q, k, v, enable_gqa=True), 1, 2 * 64 * 4),
    ],
    ids=["plain", "by name", "boolean mask", "additive mask", "causal", "grouped"],
)
def test_masked_attention_is_counted_in_full(attend: Callable[..., Tensor], heads: int, unread: int) -> None:
    """2 query heads of 4 channels, 64 queries and 64 keys each, with any mask; a shared key is read once."""
    found = costs_after(lambda x: attend(by_heads(x), by_heads(x, heads), by_heads(x, heads)))
    assert found == (PRODUCTS, SCORES + 64 * 8, MAPS - unread)


def test_attention_to_fewer_keys_with_longer_values() -> None:
    """64 queries, 16 keys of 4 channels, values of 5."""
    found = costs_after(lambda x: sdpa(by_heads(x), by_heads(x)[:, :, :16], x.new_empty(1, 2, 16, 5)))
    assert found == (2 * 64 * 16 * (4 + 5), 2 * 64 * 16 + 2 * 64 * 5, 2 * (64 * 4 + 16 * 4 + 16 * 5 + 64 * 5))


@pytest.mark.parametrize(
    ("then", "macs", "activations", "moved"),
    [
        (lambda x: torch.mv(tokens(x)[0], x[0, :, 0, 0]), 64 * 8, 64, 64 * 8 + 8 + 64),
        (lambda x: torch.dot(x.flatten(), x.flatten()), 512, 1, 2 * 512 + 1),
        (lambda x: torch.vdot(x.flatten(), x.flatten()), 512, 1, 2 * 512 + 1),
        (lambda x: torch.addmv(x[0, 0].flatten(), tokens(x)[0], x[0, :, 0, 0]), 64 * 8, 64, 64 * 8 + 8 + 64),
        (lambda x: torch.addbmm(x.new_empty(64, 64), tokens(x), x.flatten(2)), 64 * 64 * 8, 64 * 64, 2 * 512 + 64 * 64),
        (lambda x: torch.baddbmm(x.new_empty(1, 64, 64), tokens(x), x.flatten(2)), 64 * 64 * 8, 4096, 2 * 512 + 4096),
        (lambda x: torch.cdist(tokens(x), tokens(x)), 64 * 64 * 8, 64 * 64, 2 * 512 + 64 * 64),
        (lambda x: F.bilinear(tokens(x), tokens(x), x.new_empty(3, 8, 8)), 64 * 3 * 8 * 8, 64 * 3, None),
        (lambda x: F.interpolate(x, size=5, mode="bicubic", antialias=True), 0, 0, 0),
        (lambda x: F.interpolate(x, size=5, mode="bilinear", antialias=True), 0, 0, 0),
        (lambda x: F.grid_sample(x, x.new_empty(1, 4, 4, 2), align_corners=False), 0, 0, 0),
        (lambda x: F.embedding(torch.zeros(4, dtype=torch.long, device="meta"), tokens(x)[0]), 0, 0, 0),
        (lambda x: F.avg_pool3d(x[None], 2), 0, 0, 0),
        (lambda x: F.affine_grid(x.new_empty(1, 2, 3), [1, 8, 4, 4], False), 4 * 4 * 2 * 3, 32, 6 + 32),
    ],
)  # fmt: skip
def test_other_products_and_free_operators(
    then: Callable[..., Tensor], macs: int, activations: int, moved: int | None
) -> None:
    found = costs_after(then)
    assert found[:2] == (macs, activations) and moved in (None, found[2])


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_counted(recurrent: type[nn.LSTM | nn.GRU]) -> None:
    """4 gates of 5 hidden units (3 gates in a GRU), from 8 inputs and 5 hidden units, at each of 64 steps."""
    gates = 4 if recurrent is nn.LSTM else 3
    macs, *_ = costs_after(lambda x, layer: layer(tokens(x))[0], recurrent(8, 5, batch_first=True))
    assert macs == 64 * gates * 5 * (8 + 5)


def encoder(norm_first: bool = False, nested: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested and not norm_first)


LAYER = 64 * 8 * 24 + PRODUCTS + 64 * 8 * 8 + 2 * 64 * 8 * 16
"""Query, key and value, both products, output, and a feed-forward network of 16 units."""


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padding", [False, True])
def test_transformer_encoders_are_counted_without_the_fast_path(norm_first: bool, padding: bool) -> None:
    """In evaluation mode, torch would run a layer as one operator, and a padded one on nested tensors."""
    mask = torch.zeros(1, 64, dtype=torch.bool, device="meta") if padding else None
    before = torch.backends.mha.get_fastpath_enabled()
    macs, *_ = costs_after(lambda x, layers: layers(tokens(x), src_key_padding_mask=mask), encoder(norm_first))
    assert macs == 2 * LAYER
    assert torch.backends.mha.get_fastpath_enabled() == before
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for need_weights in (False, True):
        x_and_weights = lambda x, m: m(tokens(x), tokens(x), tokens(x), need_weights=need_weights)[0]  # noqa: B023, E731
        assert costs_after(x_and_weights, attention)[0] == 64 * 8 * 24 + PRODUCTS + 64 * 8 * 8


@pytest.mark.parametrize(
    "name",
    [
        "vit_b_16",
        "swin_v2_t",
        "efficientnet_b0",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("swin_t", "maxvit_t")),
    ],
)
def test_models_of_torchvision_have_their_published_counts(name: str) -> None:
    """torchvision publishes parameters and GMACs with its weights; torch's counter is a second reference."""
    from torchvision import models

    with torch.device("meta"):
        model = models.get_model(name)
    published = models.get_model_weights(name).DEFAULT.meta
    side = {"swin_v2_t": 256}.get(name, 224)
    with torch.no_grad(), no_fast_path(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, side, side, device="meta"))
    counts = count(model, side)
    assert counts.params == published["num_params"]
    assert 2 * counts.macs == counter.get_total_flops()
    assert counts.macs / 1e9 == pytest.approx(published["_ops"], rel=0.01)


# -- an HRViT that is not what its config says ------------------------------------------------------------------------


def witnessed_macs(model: nn.Module) -> int:
    meta = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), use_explicit_attention(meta), FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, 3, 64, 64, device="meta"))
    return counter.get_total_flops() // 2


def stride(model: Any) -> None:
    model.stem.conv1.stride = (1, 1)


def kernel(model: Any) -> None:
    conv = model.stem.conv2
    conv.padding, conv.dilation = (2, 2), (2, 2)
    conv.stride = (3, 3)


def windows(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, CrossShaped):
            module.window_size = 8


def a_hook(model: Any) -> None:
    model.stem.register_forward_pre_hook(lambda _, inputs: (F.avg_pool2d(inputs[0], 2),))


def a_parametrization(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.stem.conv1)


def another_part(model: Any) -> None:
    model.stages[0].branches[0] = nn.Identity()


def halved(stem: TwoConvStem, x_BCHW: Tensor) -> Tensor:
    return TwoConvStem.forward(stem, x_BCHW[:, :, ::2, ::2])


def another_forward(model: Any) -> None:
    model.stem.forward = MethodType(halved, model.stem)


ALTERED = (stride, kernel, windows, a_hook, a_parametrization, another_part, another_forward)


@pytest.mark.parametrize("alter", ALTERED)
def test_a_changed_network_is_counted_as_it_is(alter: Callable[[Any], None]) -> None:
    model = create_model(SMALL)
    said = count(model.config, 64)
    assert count(model, 64).rows == said.rows
    alter(model)
    counts = count(model, 64)
    assert counts.rows != said.rows and counts.macs == witnessed_macs(model)
    assert counts.params == sum(parameter.numel() for parameter in model.parameters())


def test_changes_without_effect_on_counts_keep_the_ledger() -> None:
    """Modes, switches, values and dtype; and a part that was replaced together with its field in the config."""
    model: Any = create_model(SMALL)
    for alter in (
        lambda: model.eval(), lambda: model.set_grad_checkpointing(True), lambda: model.requires_grad_(False),
        lambda: model.stem.conv1.weight.data.mul_(2), lambda: model.to(torch.bfloat16), lambda: model.to("meta"),
        lambda: model.reset_classifier(7), lambda: model.prune_intermediate_layers(2),
    ):  # fmt: skip
        alter()
        state = torch.get_rng_state()
        with use_explicit_attention(model):
            assert count(model, 64).rows == count(model.config, 64).rows
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("side", [np.int64(64), np.int32(64), np.uint8(64)])
def test_integers_of_numpy_are_accepted_as_sizes(side: Any) -> None:
    sizes: list[Any] = [side, (side, side), [side, 64]]
    for size in sizes:
        counts = count("hrvit_nano", size)
        assert counts == count("hrvit_nano", 64) and list(map(type, counts.resolution)) == [int, int]
    assert PRESETS["hrvit_nano"].map_sizes(side) == PRESETS["hrvit_nano"].map_sizes(64)


@pytest.mark.parametrize(
    "resolution", [224.0, (224,), "224", (224, 0), (1, 2, 3), None, True, (True, 64), np.float64(64), np.bool_(1)]
)
def test_an_invalid_resolution_is_reported_in_one_sentence(resolution: Any) -> None:
    with pytest.raises(ConfigError, match=r"resolution = .* is not a size"):
        count("hrvit_nano", resolution)


def test_an_object_that_is_no_model_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="count got int; give the name of a preset, a config or a module"):
        count(5)  # type: ignore[arg-type]


def test_counting_does_not_change_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    counts = count(model, 16)
    assert counts.macs == 3 * 4 * 9 * 14 * 14 and counts.params == 3 * 4 * 9 + 4 + 8
    assert model.training and next(model.parameters()).device.type == "cpu"


def test_more_branches_cost_more() -> None:
    macs = [count(with_branches(PRESETS["hrvit_nano"], n), 64).macs for n in range(1, 6)]
    assert macs == sorted(macs) and len(set(macs)) == 5


@pytest.mark.parametrize("module", [False, True])
def test_totals_of_a_config_need_no_rows(module: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are computed on first use, once, and sum to the totals."""
    built: list[object] = []
    rows_of = counting.ledger

    def note(*given: Any) -> Any:
        built.append(given)
        return rows_of(*given)

    monkeypatch.setattr(counting, "ledger", note)
    counts = count(create_model("hrvit_nano") if module else "hrvit_nano", 64)
    macs, params, moved = counts.macs, counts.params, counts.moved_bytes()
    assert macs and not built
    costs = [row.cost for row in counts.rows]
    assert counts.rows is counts.rows and len(built) == 1
    assert (macs, params) == (sum(cost.macs for cost in costs), sum(cost.params for cost in costs))
    assert moved == 4 * sum(cost.moved + cost.params for cost in costs)
