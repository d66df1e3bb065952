"""Time of closed-form costs: ``python tests/bench_cost.py`` prints one JSON line.

Random configs: half of them are as small as those of the property tests, half have the size of b1. Each is counted
once. Sums of equal parts are shared between networks, as in a search; the caches are empty at the start of each of 5
rounds. The figure is the median over rounds of the processor time of this process on one thread.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from random_configs import random_config

from hrvit_lab.config import PRESETS, HRViTConfig
from hrvit_lab.cost.ledger import part_totals, totals

RESOLUTION = 224


def random_large_config(rng: random.Random) -> HRViTConfig:
    """b1's topology with random values of everything that determines its size."""
    depths = tuple(tuple(rng.randint(1, 8) for _ in stage) for stage in PRESETS["hrvit_b1"].depths)
    return HRViTConfig(
        depths=depths,
        widths=tuple(32 * rng.randint(1, 16) for _ in range(4)),
        head_dims=tuple(rng.choice((8, 16)) for _ in range(4)),
        window_sizes=tuple(rng.randint(1, 14) for _ in range(4)),
        mlp_ratios=tuple(rng.choice((1, 2, 3, 4)) for _ in range(4)),
        stem_width=rng.choice((32, 48, 64, 96)),
    )


def draw(number: int, seed: int = 0) -> list[HRViTConfig]:
    """That many configs, alternately small and large."""
    rng = random.Random(seed)
    return [(random_config, random_large_config)[i % 2](rng) for i in range(number)]


def seconds_per_config(configs: Sequence[HRViTConfig]) -> list[float]:
    """Processor seconds for the totals of each config, with empty caches before the first."""
    part_totals.cache_clear()
    seconds = []
    for config in configs:
        began = time.process_time()
        totals(config, RESOLUTION)
        seconds.append(time.process_time() - began)
    return seconds


def main(configs: int = 2000, rounds: int = 5) -> None:
    """Measure and print."""
    drawn = draw(configs)
    measured = [seconds_per_config(drawn) for _ in range(rounds)]
    seconds = sorted(measured, key=sum)[rounds // 2]
    result = {
        "benchmark": "closed-form totals",
        "configs": configs,
        "resolution": RESOLUTION,
        "configs_per_s": round(len(seconds) / sum(seconds)),
        "ms_median": round(1e3 * statistics.median(seconds), 4),
        "ms_p99": round(1e3 * statistics.quantiles(seconds, n=100)[-1], 4),
        "ms_max": round(1e3 * max(seconds), 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
