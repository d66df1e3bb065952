"""Properties of random configs: 80 valid ones (1,375 more in slow tests), 200 invalid ones."""

import random
from typing import Any

import pytest
import torch
from operators import TorchFlops
from random_configs import odd_resolution, random_config, random_invalid_fields
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.ledger import totals
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT


def check_counts(model: HRViT, image: Tensor) -> Any:
    """Compare the closed form with torch's own formulas for the dispatched operators, in one pass of one image with
    explicit attention; returns the output."""
    config, resolution = model.config, (image.shape[2], image.shape[3])
    with torch.no_grad(), use_explicit_attention(model), TorchFlops() as run:
        out = model(image)
    closed = totals(config, resolution)
    # torch's counter counts floating-point operations: two for a multiply-accumulate
    assert 2 * closed.macs == run.flops, (config, resolution)
    assert closed.activations == run.activations, (config, resolution)
    assert closed.params == sum(p.numel() for p in model.parameters()), config
    return out


def check_shapes(config: HRViTConfig, out: Any, resolution: tuple[int, int]) -> None:
    height, width = resolution
    if isinstance(out, Tensor):
        finest = (-(-height // 4), -(-width // 4)) if config.head in ("segformer", "upernet") else ()
        pooled = config.widths[-1] if config.topology == "pyramid" else sum(config.widths)
        assert tuple(out.shape) == (1, config.num_classes or config.head_channels or pooled, *finest)
    else:
        expected = [(1, w, -(-height // s), -(-width // s)) for w, s in zip(config.widths, config.strides, strict=True)]
        assert [tuple(y.shape) for y in out] == expected


def test_the_counter_of_these_tests_equals_torchs() -> None:
    """The counter that applies torch's formulas here agrees with torch's own counter."""
    rng = random.Random(4)
    for _ in range(4):
        config = random_config(rng)
        model, image = build(config).eval(), torch.rand(1, config.in_chans, *odd_resolution(rng, config))
        with torch.no_grad(), TorchFlops() as ours:
            model(image)
        with torch.no_grad(), FlopCounterMode(display=False) as theirs:
            model(image)
        assert ours.flops == theirs.get_total_flops() > 0


def check_random_configs(seed: int, number: int, sizes: int) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        config = random_config(rng)
        model = build(config).eval()
        for _ in range(sizes):
            resolution = odd_resolution(rng, config)
            image = torch.rand(1, config.in_chans, *resolution)
            check_shapes(config, check_counts(model, image), resolution)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 11))])
def test_random_configs_build_run_and_count_exactly(seed: int) -> None:
    check_random_configs(seed, number=35, sizes=1)


@pytest.mark.parametrize(("seed", "number"), [(18, 10), pytest.param(19, 25, marks=pytest.mark.slow)])
def test_random_configs_count_exactly_at_five_sizes(seed: int, number: int) -> None:
    check_random_configs(seed, number, sizes=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_thousand_random_configs_count_exactly_at_five_sizes(seed: int) -> None:
    check_random_configs(seed, number=50, sizes=5)


def test_random_configs_are_restored_from_text_with_the_same_id() -> None:
    rng = random.Random(1)
    for _ in range(100):
        config = random_config(rng)
        for copy in (
            HRViTConfig.from_yaml(config.to_yaml()),
            HRViTConfig.from_json(config.to_json()),
            HRViTConfig.from_dict(config.to_dict()),
        ):
            assert copy == config and copy.id == config.id and hash(copy) == hash(config)


def test_random_invalid_configs_name_the_field() -> None:
    rng = random.Random(2)
    for _ in range(200):
        fields, blamed = random_invalid_fields(rng)
        with pytest.raises(ConfigError) as caught:
            HRViTConfig(**fields)
        message = str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert blamed in message and "\n" not in message and len(message) < 600, message
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
