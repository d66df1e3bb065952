"""Networks that a search evaluates in a minute of a core: ``python tests/bench_search.py`` prints one JSON line.

Each search is a whole command, with its start, its random search beside it, its report and figures; so the figures are
lower bounds. They are of processor time, so that other programs matter little. ``costs``: MACs, parameters and moved
memory. ``latency``: MACs, parameters and the latency predicted from a profile, in the space of ``lighter_b1``.
``fine``: costs in a space with every width, head dim and tenth of a ratio.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOAL_PER_MINUTE = 10_000
"""A core; 20,000 on two."""
COSTS = {"macs": "lower", "moved_mib": "lower", "params": "higher"}
FINE = {
    "widths": {"per": "branch", "choices": {"from": 8, "to": 256, "step": 1}},
    "head_dims": {"per": "branch", "choices": {"from": 4, "to": 64, "step": 1}},
    "mlp_ratios": {"per": "branch", "choices": {"from": 2, "to": 6, "step": 0.1}},
}


def searches() -> dict[str, dict[str, Any]]:
    """The search files, by name."""
    import yaml

    space = yaml.safe_load((ROOT / "studies" / "search" / "lighter_b1.yaml").read_text())["space"]
    fields = {
        "title": "Bench",
        "question": "How many networks a minute?",
        "base": {"preset": "hrvit_b1", "num_classes": 10},
        "resolution": 224,
    }
    latency = {
        "space": space,
        "objectives": {"macs": "lower", "predicted_latency_ms": "lower", "params": "higher"},
        "profile": str(ROOT / "studies" / "profiles" / "lighter_b1.json"),
    }
    return {
        "costs": {**fields, "space": space, "objectives": COSTS},
        "latency": {**fields, **latency},
        "fine": {**fields, "space": FINE, "objectives": COSTS},
    }


def per_minute(fields: dict[str, Any], evaluations: int, seeds: int) -> float:
    """Networks that one command evaluates by NSGA-II and random search, divided by the minutes of its processes."""
    budget = {"evaluations": evaluations, "population": 100, "seeds": list(range(seeds))}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(json.dumps({**fields, "budget": budget}))
        began = _children_s()
        command = [sys.executable, "-m", "hrvit_lab", "search", str(file), "--out", str(Path(folder) / "results")]
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL
        )
        return 60 * 2 * evaluations * seeds / (_children_s() - began)


def _children_s() -> float:
    """Processor seconds of all ended children of this process, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(evaluations: int = 5000, seeds: int = 4) -> None:
    """Measure and print; exit with 1 below the goal."""
    rates = {name: round(per_minute(fields, evaluations, seeds)) for name, fields in searches().items()}
    print(json.dumps({"networks_per_core_minute": rates, "goal": GOAL_PER_MINUTE}))
    raise SystemExit(min(rates.values()) < GOAL_PER_MINUTE)


if __name__ == "__main__":
    main()
