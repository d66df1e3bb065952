"""Whole networks under autocast in bfloat16 on the CPU: the residual stream stays in float32, and errors are small."""

import copy
from typing import Any

import pytest
import torch
from naive import NaiveHRViT
from test_modules import IMAGE, NETWORKS, awake, loss, outputs
from torch import Tensor, nn

from hrvit_lab import PRESETS, HRViTConfig, create_model, load_published
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.network.blocks import Block, Fusion, ServedBlock, WeightedSum
from hrvit_lab.network.deploy import deploy

every_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS.keys())


def low() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@every_network
@pytest.mark.parametrize("form", ["training", "evaluation", "served"])
def test_the_residual_stream_stays_in_float32(config: HRViTConfig, form: str) -> None:
    """Inputs and outputs of blocks, and fused maps to which a map of the previous stage was added."""
    model: nn.Module = awake(config).train(form == "training")
    if form == "served":
        model = deploy(model)
    dtypes: dict[str, set[torch.dtype]] = {"block": set(), "fused": set()}

    def block_ran(_: nn.Module, args: Any, result: Tensor) -> None:
        dtypes["block"] |= {args[0].dtype, result.dtype}

    def fusion_ran(fusion: nn.Module, args: Any, result: tuple[Tensor, ...]) -> None:
        # The stem's map is the output of convolutions, in bfloat16; so is the map of a new branch.
        dtypes["fused"] |= {y.dtype for x, y in zip(args, result, strict=False) if x.dtype == torch.float32}

    for part in model.modules():
        if isinstance(part, Block | ServedBlock):
            part.register_forward_hook(block_ran)
        elif isinstance(part, Fusion | WeightedSum):
            part.register_forward_hook(fusion_ran)
    with torch.set_grad_enabled(form == "training"), low():
        model(IMAGE)
    assert dtypes["block"] == {torch.float32}
    assert dtypes["fused"] <= {torch.float32}
    assert bool(dtypes["fused"]) == (config.topology == "parallel" and config.branch_norm)


@every_network
@pytest.mark.parametrize("form", ["plain", "served"])
def test_outputs_equal_those_of_float32_up_to_bfloat16_rounding(config: HRViTConfig, form: str) -> None:
    model: nn.Module = awake(config).eval()
    if form == "served":
        model = deploy(model)
    with torch.no_grad():
        expected = outputs(model)
        with low():
            found = outputs(model)
    for ours, exact in zip(found, expected, strict=True):
        assert (ours.float() - exact).abs().max() < 0.04 * exact.abs().max()


@every_network
def test_a_training_step_has_the_gradients_of_float32(config: HRViTConfig) -> None:
    """With fixed statistics, because a BatchNorm over two images amplifies rounding."""
    exact = awake(config).eval()
    rounded = copy.deepcopy(exact)
    loss(exact).backward()
    with low():
        total = torch.stack([output.float().square().mean() for output in outputs(rounded)]).sum()
    total.backward()
    ours, theirs = (
        torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        for model in (rounded, exact)
    )
    assert ours.dtype == torch.float32 and ours.isfinite().all()
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_the_error_is_at_most_that_of_the_naive_network() -> None:
    """The naive network adds out of place, in the dtype that autocast chooses."""
    naive = NaiveHRViT(PRESETS["hrvit_nano"]).eval()
    randomize_norms(naive)
    ours = create_model("hrvit_nano").eval()
    load_published(ours, naive.state_dict())
    images = torch.randn(8, 3, 64, 64)

    def error(model: nn.Module) -> float:
        with torch.no_grad():
            exact = model(images)
            with low():
                return float((model(images).float() - exact).square().mean().sqrt() / exact.std())

    assert 0 < error(ours) < 1.25 * error(naive) < 0.05
