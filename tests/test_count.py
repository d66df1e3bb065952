"""Counts against hand counts, other counters and published figures; operators that nobody counted are errors."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from hrvit_lab import PRESETS, ConfigError, HRViTConfig, count, create_model
from hrvit_lab.config import with_branches
from hrvit_lab.cost.count import UncountedOperator
from hrvit_lab.cost.dispatch import dispatch_count
from hrvit_lab.network.deploy import deploy


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


def test_padded_windows_by_hand() -> None:
    """Window 7 on a 10×10 map: 7 + 3 rows as they are, 14 padded."""
    config = HRViTConfig(
        depths=((1,),), widths=16, head_dims=8, window_sizes=7, mlp_ratios=2, stem_width=4, head="none"
    )
    attention = count(config, 40).table("operator").set_index("operator").loc["attention"]
    assert attention.macs == 2 * (2 * 8 * (70**2 + 30**2))
    assert attention.macs_padded == 2 * (2 * 8 * 2 * 70**2)


@pytest.mark.parametrize("name", ["hrvit_b1", "hrvit_nano"])
@pytest.mark.parametrize("resolution", [(224, 224), (97, 161)])
def test_closed_form_equals_what_is_dispatched(name: str, resolution: tuple[int, int]) -> None:
    closed = count(PRESETS[name], resolution)
    with torch.device("meta"):
        model = create_model(name)
    dispatched = dispatch_count(model, resolution)
    assert (closed.params, closed.macs, closed.activations) == (
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


def test_unknown_grouping() -> None:
    with pytest.raises(ValueError, match="use operator, branch, stage or part"):
        count(PRESETS["hrvit_nano"]).table("layer")


@pytest.mark.parametrize(
    ("name", "params_m", "gmacs", "activations_m"),
    [  # as timm's own results tables give them at 224
        ("resnet50", 25.56, 4.11, 11.11),
        ("swin_tiny_patch4_window7_224", 28.29, 4.51, 17.06),
        ("hrnet_w18", 21.30, 4.32, 16.31),
    ],
)
def test_any_timm_model(name: str, params_m: float, gmacs: float, activations_m: float) -> None:
    with torch.device("meta"):
        counts = count(timm.create_model(name), 224)
    assert counts.params / 1e6 == pytest.approx(params_m, abs=0.006)
    assert counts.macs / 1e9 == pytest.approx(gmacs, rel=0.02)  # theirs adds norms and pooling
    assert counts.activations / 1e6 == pytest.approx(activations_m, rel=0.01)


def test_an_operator_nobody_counted_is_an_error() -> None:
    class Spectral(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    with pytest.raises(UncountedOperator, match="fft"):
        count(Spectral(), 32)


def test_a_model_that_is_no_longer_its_config_is_counted_as_it_is() -> None:
    plain, served = create_model("hrvit_nano"), deploy(create_model("hrvit_nano"))
    assert count(served, 64).params == sum(p.numel() for p in served.parameters()) != count(plain, 64).params
    backbone = create_model("hrvit_nano")
    backbone.prune_intermediate_layers(1)
    assert count(backbone, 64).params == sum(p.numel() for p in backbone.parameters())
    assert count(backbone, 64).macs == count(create_model("hrvit_nano", head="none"), 64).macs


@pytest.mark.parametrize("resolution", [224.0, (224,), "224", (224, 0), (1, 2, 3), None, True])
def test_no_resolution_is_one_sentence(resolution: Any) -> None:
    with pytest.raises(ConfigError, match=r"resolution = .* is no size"):
        count("hrvit_nano", resolution)


def test_no_model_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="not int"):
        count(5)  # type: ignore[arg-type]


def test_counting_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    counts = count(model, 16)
    assert counts.macs == 3 * 4 * 9 * 14 * 14 and counts.params == 3 * 4 * 9 + 4 + 8
    assert model.training and next(model.parameters()).device.type == "cpu"


def test_more_branches_cost_more() -> None:
    macs = [count(with_branches(PRESETS["hrvit_nano"], n), 64).macs for n in range(1, 6)]
    assert macs == sorted(macs) and len(set(macs)) == 5
