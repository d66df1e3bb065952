"""Properties over the whole space of configs: 1,000 random valid ones, 200 random invalid ones."""

import random
from typing import Any

import pytest
import torch
from random_configs import odd_resolution, random_config, random_invalid_fields
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.ledger import totals
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT

aten = torch.ops.aten
PRODUCTS = {aten.convolution, aten.addmm, aten.mm, aten.bmm, aten.baddbmm}


class ActivationCounter(TorchDispatchMode):
    """Elements in the outputs of products. One that continues a product makes no new output: in MixCFN the linear of
    the second half, whose output is added to that of the first, and which alone has no bias (``mm``)."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in PRODUCTS and func is not aten.mm.default:
            self.elements += out.numel()
        return out


def check_counts(model: HRViT, image: Tensor) -> Any:
    """The closed form against torch's own counter and a plain dispatch mode, both in one pass of one image with
    attention written out; its output."""
    config, resolution = model.config, (image.shape[2], image.shape[3])
    flops, activations = FlopCounterMode(display=False), ActivationCounter()
    with torch.no_grad(), use_explicit_attention(model), activations, flops:
        out = model(image)
    closed = totals(config, resolution)
    # torch's counter counts floating-point operations: two for a multiply-accumulate
    assert 2 * closed.macs == flops.get_total_flops(), (config, resolution)
    assert closed.activations == activations.elements, (config, resolution)
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


def check_random_configs(seed: int, number: int, sizes: int) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        config = random_config(rng)
        model = build(config).eval()
        for _ in range(sizes):
            resolution = odd_resolution(rng, config)
            image = torch.rand(1, config.in_chans, *resolution)
            check_shapes(config, check_counts(model, image), resolution)


@pytest.mark.parametrize("seed", range(18))
def test_random_configs_build_run_and_count_exactly(seed: int) -> None:
    check_random_configs(seed, number=50, sizes=1)


@pytest.mark.parametrize("seed", range(18, 22))
def test_random_configs_count_exactly_at_five_sizes(seed: int) -> None:
    check_random_configs(seed, number=25, sizes=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_thousand_random_configs_count_exactly_at_five_sizes(seed: int) -> None:
    check_random_configs(seed, number=50, sizes=5)


def test_random_configs_survive_text_and_keep_their_id() -> None:
    rng = random.Random(1)
    for _ in range(500):
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
