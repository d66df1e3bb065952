"""Scaling to a budget against brute force: every factor, every rounding, every network built by its own validation."""

import itertools
import random

import pytest
from random_configs import random_config

from hrvit_lab.config import ConfigError, HRViTConfig, preset, with_branches
from hrvit_lab.cost.budget import MAX_SCALE, scale_to_budget
from hrvit_lab.cost.count import count

SIZE = (64, 96)
COSTS = ("params", "macs", "moved_mib")


def with_width(config: HRViTConfig, branch: int, width: int) -> HRViTConfig | None:
    widths = (*config.widths[:branch], width, *config.widths[branch + 1 :])
    stem = {"stem_width": widths[0]} if config.topology == "pyramid" else {}
    try:
        return config.replace(widths=widths, **stem)
    except ConfigError:
        return None


def brute_force(config: HRViTConfig, metric: str, limit: float) -> float | None:
    """The highest cost within the limit, over factors between all those at which a width becomes valid."""
    valid = [
        [w for w in range(-(-own // MAX_SCALE), own * MAX_SCALE + 1) if with_width(config, branch, w)]
        for branch, own in enumerate(config.widths)
    ]
    at = sorted({w / own for grid, own in zip(valid, config.widths, strict=True) for w in grid})
    between = [(a + b) / 2 for a, b in itertools.pairwise(at)] + [at[0] / 2, at[-1] * 2]
    tried = set()
    for factor in between:
        pairs = []
        for grid, own in zip(valid, config.widths, strict=True):
            below, above = [w for w in grid if w < own * factor], [w for w in grid if w > own * factor]
            pairs.append({below[-1] if below else grid[0], above[0] if above else grid[-1]})
        tried |= set(itertools.product(*pairs))
    costs = []
    for widths in tried:
        stem = {"stem_width": widths[0]} if config.topology == "pyramid" else {}
        costs.append(getattr(count(config.replace(widths=widths, **stem), SIZE), metric))
    return max((cost for cost in costs if cost <= limit), default=None)


NETWORKS = {
    "two branches": with_branches(preset("hrvit_nano"), 2),
    "coarse widths": with_branches(preset("hrvit_nano"), 3).replace(head_dims=16, widths=(16, 32, 64)),
    "any width": with_branches(preset("hrvit_nano"), 2).replace(attention="identity", ffn="mlp", shortcut="none"),
    "a pyramid": with_branches(preset("mit_b0"), 2).replace(widths=(16, 32), head_dims=16, stem_width=16),
}


@pytest.mark.parametrize("metric", COSTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_result_is_the_nearest_within_the_limit(network: str, metric: str) -> None:
    config = NETWORKS[network]
    for factor in (0.6, 1.0, 2.2):
        limit = getattr(count(config, SIZE), metric) * factor
        expected = brute_force(config, metric, limit)
        if expected is None:
            with pytest.raises(ConfigError, match="smallest widths"):
                scale_to_budget(config, metric, limit, SIZE)
            continue
        scaled = scale_to_budget(config, metric, limit, SIZE)
        assert getattr(count(scaled, SIZE), metric) == expected <= limit
        assert scaled.replace(widths=config.widths, stem_width=config.stem_width) == config  # nothing else changed


def test_a_network_that_meets_its_own_cost_exactly_stays_at_it() -> None:
    for name in ("hrvit_b1", "hrvit_b3", "mit_b1", "hrvit_nano"):
        config = preset(name)
        macs = count(config, 224).macs
        assert count(scale_to_budget(config, "macs", macs, 224), 224).macs == macs


def test_b3_with_the_macs_of_b1() -> None:
    limit = count("hrvit_b1", 224).macs
    scaled = scale_to_budget(preset("hrvit_b3"), "macs", limit, 224)
    assert 0.93 * limit < count(scaled, 224).macs <= limit


def test_random_networks_stay_within_limits() -> None:
    draw = random.Random(2)
    for _ in range(25):
        config = random_config(draw).replace(patch_embed="efficient")
        limit = count(config, (128, 128)).params * draw.uniform(0.7, 3)
        try:
            scaled = scale_to_budget(config, "params", limit, (128, 128))
        except ConfigError as error:
            assert "smallest widths" in str(error)
            continue
        assert count(scaled, (128, 128)).params <= limit


def test_a_limit_below_the_smallest_network_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"parameters: .* at the smallest widths .* above the limit of 1\.00 k; use"):
        scale_to_budget(preset("hrvit_b1"), "params", 1000, 224)
