"""Properties over the whole space of configs: 500 random valid ones, 200 random invalid ones."""

import random

import pytest
import torch
from random_configs import odd_resolution, random_config, random_invalid_fields
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab.blocks import use_explicit_attention
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.measure.count import count
from hrvit_lab.model import build


@pytest.mark.parametrize("batch", range(10))
def test_random_configs_build_run_and_count_exactly(batch: int) -> None:
    rng = random.Random(batch)
    for _ in range(50):
        config = random_config(rng)
        with torch.device("meta"):
            params = sum(p.numel() for p in build(config).parameters())
        assert count(config, 256).params == params, config
        model = build(config).eval()
        for _ in range(2):
            height, width = odd_resolution(rng, config)
            image = torch.rand(1, config.in_chans, height, width)
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), use_explicit_attention(model), counter:
                out = model(image)
            # torch's counter counts floating-point operations: two for a multiply-accumulate
            assert 2 * count(config, (height, width)).macs == counter.get_total_flops(), (
                config,
                height,
                width,
            )
            if config.head == "none":
                expected = [
                    (1, w, -(-height // s), -(-width // s)) for w, s in zip(config.widths, config.strides, strict=True)
                ]
                assert [tuple(y.shape) for y in out] == expected
            else:
                assert tuple(out.shape) == (1, config.num_classes or config.head_features)


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
