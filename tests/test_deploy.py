"""deploy(): equal outputs with fewer operators; the plain model is unchanged."""

import copy

import pytest
import torch
from operators import RealOperators, count_real_operators
from random_configs import with_one_block_a_branch
from reference import reference_input, reference_tensor
from torch import nn

from hrvit_lab import PRESETS, build, create_model
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.blocks.attend import attend_served
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.heads import HEAD
from hrvit_lab.network.model import HRViT


@pytest.mark.parametrize(("height", "width"), [(224, 224), (288, 288), (512, 512), (64, 96)])
def test_outputs_equal_those_of_the_plain_model(plain: HRViT, served: HRViT, height: int, width: int) -> None:
    image = reference_input(height, width)
    with torch.no_grad():
        expected = plain(image)
        assert (served(image) - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize(("resolution", "at_most"), [(224, 1050), (512, 1250)])
def test_the_deployed_network_runs_fewer_operators(served: HRViT, resolution: int, at_most: int) -> None:
    assert count_real_operators(served, reference_input(resolution, resolution)) <= at_most


@pytest.mark.parametrize("head", HEAD)
def test_every_head_is_deployed(head: str) -> None:
    model = build(with_one_block_a_branch(PRESETS["hrvit_nano"]).replace(head=head, num_classes=7)).eval()
    model.load_state_dict({key: reference_tensor(key, tuple(v.shape)) for key, v in model.state_dict().items()})
    served = deploy(model)
    for side in (64, 96):
        image = torch.randn(2, 3, 64, side)
        with torch.no_grad():
            expected = model(image)
            torch.testing.assert_close(served(image), expected, atol=1e-5, rtol=1e-4)
        assert expected[0].abs().max() > 0.1


@pytest.mark.parametrize("head", HEAD)
def test_no_batch_norm_is_left_and_the_plain_model_is_untouched(head: str) -> None:
    model = build(with_one_block_a_branch(PRESETS["hrvit_nano"]).replace(head=head)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    served = deploy(model)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in served.modules())
    assert model.training and not served.training
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_batches_and_small_maps_agree(plain: HRViT, served: HRViT) -> None:
    """The deployed feed-forward network uses different operators for few and for many tokens."""
    for shape in ((3, 3, 64, 64), (2, 3, 160, 96)):
        image = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(served(image), plain(image), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("windows", "heads", "tokens", "dtype", "two_products"),
    [
        (3, 2, 16, torch.float32, True), (3, 1, 60, torch.float32, True), (100, 1, 60, torch.float32, True),
        (112, 1, 60, torch.float32, False), (3, 2, 15, torch.float32, False), (3, 1, 61, torch.float32, False),
        (3, 2, 16, torch.bfloat16, True), (3, 1, 98, torch.bfloat16, True), (3, 1, 99, torch.bfloat16, False),
        (3, 2, 16, torch.float64, False),
    ],
)  # fmt: skip
def test_small_windows_are_two_products(
    windows: int, heads: int, tokens: int, dtype: torch.dtype, two_products: bool
) -> None:
    """Windows of 16 to 60 tokens, in bfloat16 to 98, with at most 400,000 scores; the others use the fused kernel."""
    q, v = torch.randn(2, windows, tokens, heads, 8, dtype=dtype).transpose(2, 3)  # as views of a map
    operators = RealOperators()
    with torch.no_grad(), operators:
        found = attend_served(q, v)
    assert ("aten.bmm.default" in operators.calls) == two_products
    weights = torch.exp(q.double() @ v.double().transpose(-2, -1) / 8**0.5)
    expected = weights @ v.double() / weights.sum(-1, keepdim=True)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_the_deployed_network_needs_no_more_memory(dtype: str) -> None:
    """Most of the memory is weights; none is stored in two forms, except those of small convolutions."""
    model = create_model("hrvit_b1")
    plain, served = (measure_peak_memory(form, 64, dtype=dtype) for form in (model, deploy(model)))
    assert 0.9 * plain < served < 1.1 * plain


def test_a_copy_and_another_deployment_are_the_same_network(plain: HRViT, served: HRViT) -> None:
    image = torch.randn(1, 3, 64, 64)
    other = copy.deepcopy(served)
    other.load_state_dict(deploy(create_model("hrvit_b1")).state_dict())
    with torch.no_grad():
        expected = served(image)
        assert torch.equal(copy.deepcopy(served)(image), expected)
        assert torch.equal(deploy(served)(image), expected)
        assert not torch.allclose(other(image), expected)
        other.load_state_dict(served.state_dict())
        assert torch.equal(other(image), expected)
        with use_explicit_attention(other):
            torch.testing.assert_close(other(image), expected, atol=1e-5, rtol=1e-4)
