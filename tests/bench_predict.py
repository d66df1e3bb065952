"""Time of predicted latencies: ``python tests/bench_predict.py`` prints one JSON line.

Random networks of the space ``lighter_b1`` that its profile does not have, each predicted once: some of their parts are
new, as in a search. The figure is the processor time of this process on one thread, so that other programs matter
little. Before the first prediction the profile is read and fitted, once per process.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from hrvit_lab.config import HRViTConfig
from hrvit_lab.config.plan import Size
from hrvit_lab.latency.predict import Profile, load_profile, predict
from hrvit_lab.search.files import find_search
from hrvit_lab.search.genome import Space
from hrvit_lab.search.spec import load_search

PROFILE = Path(__file__).resolve().parent.parent / "studies" / "profiles" / "lighter_b1.json"
STREAM = 2
"""Distinguishes the networks from those of a profile (0) and of a check (1)."""


def draw(number: int) -> list[tuple[HRViTConfig, Size]]:
    """That many networks of the space, alternately at 160² and 224²."""
    space = Space(load_search(find_search("lighter_b1")))
    sizes = ((160, 160), (224, 224))
    return [
        (space.config(space.random(np.random.default_rng([0, STREAM, index]))), sizes[index % 2])
        for index in range(number)
    ]


def seconds_per_prediction(profile: Profile, networks: Sequence[tuple[HRViTConfig, Size]]) -> list[float]:
    """Processor seconds of each prediction; the first network is predicted once before, so that the fit is ready."""
    predict(networks[0][0], profile, networks[0][1])
    seconds = []
    for config, resolution in networks[1:]:
        began = time.process_time()
        predict(config, profile, resolution)
        seconds.append(time.process_time() - began)
    return seconds


def main(networks: int = 500) -> None:
    """Measure and print."""
    began = time.process_time()
    profile = load_profile(PROFILE)
    drawn = draw(networks + 1)
    seconds_per_prediction(profile, drawn[:1])
    ready = time.process_time() - began
    seconds = seconds_per_prediction(profile, drawn)
    result = {
        "benchmark": "predicted latency",
        "networks": len(seconds),
        "ms_median": round(1e3 * statistics.median(seconds), 3),
        "ms_p99": round(1e3 * statistics.quantiles(seconds, n=100)[-1], 3),
        "ms_max": round(1e3 * max(seconds), 3),
        "s_profile": round(ready, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
