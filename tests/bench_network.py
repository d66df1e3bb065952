"""Compare the speed of our network with the naive witness and with matrix products: ``python tests/bench_network.py``.

hrvit_b1 runs on one thread with the same weights in every form. All forms are timed in one interleaved race, and each
setting gives one JSON line:

- ``x_naive``: time of the naive witness divided by ours, the median over rounds with its 95 % interval.
- ``x_floor``, in float32: our time divided by that of the same multiply-accumulates in the fastest matrix product. The
  product is found before, and timed in the same race. ``floor`` gives its name and side.

The exit code is 1 if the best form misses a goal. It takes about 7 minutes. An argument changes what is timed:

- ``compiled``: the form ``AOTInductor`` too, which takes some minutes to compile; of training steps, compiled blocks.
- ``training``: training steps instead.
- ``segformer``: the deployed network with SegFormer's decoder, against the decoder as it is published.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from naive import NaiveHRViT
from torch import Tensor, nn

from hrvit_lab.config import PRESETS
from hrvit_lab.cost.ledger import totals
from hrvit_lab.latency.aot import compiled_ahead
from hrvit_lab.latency.compare import Budget, compare, paired_ratio
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.latency.roofline import PRODUCTS, Product, time_products
from hrvit_lab.latency.timing import cpu_stopwatch, primed
from hrvit_lab.latency.workload import Workload
from hrvit_lab.network.build import create_model
from hrvit_lab.network.checkpoints import load_published
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.heads.layers import concatenate
from hrvit_lab.network.pack import pack
from hrvit_lab.train.engine import compile_blocks

NAIVE, GEMM = "naive", "matrix product"
FORMS = ("ours", "deployed", "packed", "AOTInductor")
CONFIG = PRESETS["hrvit_b1"]
INFERENCE = ((224, 1), (224, 8), (512, 1))
Calls = dict[str, Callable[[], object]]
GOALS = {(224, 1): 1.9, (224, 8): 2.1, (512, 1): 2.6}
"""By resolution and batch size: × naive of the best form in float32, at least."""


def race(calls: Calls, seconds: float) -> dict[str, list[float]]:
    """Wall times in milliseconds of every call, by round; each call follows an untimed call of the same model."""
    watches = {name: primed(call, cpu_stopwatch(call, time.perf_counter)) for name, call in calls.items()}
    rounds = compare(watches, Budget(min_rounds=7, max_seconds=seconds))
    return {name: rounds.wall_ms(name) for name in calls}


def report(
    setting: dict[str, object], times_ms: dict[str, list[float]], macs: int = 0, gemm: Product | None = None
) -> dict[str, Any]:
    """Print one JSON line, and return its content."""
    said: dict[str, Any] = {**setting, "rounds": len(times_ms[NAIVE])}
    if gemm:
        said["floor"] = f"{gemm.product} of {gemm.side} × {gemm.side}"
    for name, own in times_ms.items():
        ratio = paired_ratio(times_ms[NAIVE], own)
        said[name] = {"latency_ms": round(median(own), 1), "x_naive": [round(value, 3) for value in ratio]}
        if gemm and name != GEMM and "bfloat16" not in name:
            floors = [macs / gemm.side**3 * product for product in times_ms[GEMM]]
            said[name]["x_floor"] = round(paired_ratio(own, floors).value, 2)
    print(json.dumps(said), flush=True)
    return said


def missed(resolution: int, batch_size: int, said: dict[str, Any]) -> str | None:
    """The goal of this setting in words if it is missed."""
    forms = {form: said[form]["x_naive"][0] for form in FORMS if form in said}
    best, goal = max(forms, key=lambda form: forms[form]), GOALS[resolution, batch_size]
    if forms[best] >= goal:
        return None
    return f"{resolution}, batch {batch_size}: naive takes {forms[best]} times as long as {best}, not {goal}"


def step(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """A training step without an optimiser."""
    model.train()

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(images).float().square().mean().backward()

    return run


def bench_segformer() -> None:
    """b1 with SegFormer's decoder at 512 × 512: ``merged``, as deployed, and ``published``: projections, resizing, one
    convolution of all maps. ``merged_by_published`` is the ratio, paired by round."""
    network = create_model(CONFIG.replace(head="segformer", segformer_width=256, num_classes=19)).eval()
    randomize_norms(network)
    merged = deploy(network)
    assert isinstance(network.head, nn.Module)
    projections, fuse, _, classifier = deploy(nn.ModuleList(network.head.children()))  # alone, they are not merged
    assert isinstance(projections, nn.ModuleList)
    images = torch.randn(1, 3, 512, 512)

    def run_published() -> Tensor:
        maps = merged.forward_features(images)
        resized = concatenate(project(x) for project, x in zip(projections, maps, strict=True))
        logits: Tensor = classifier(fuse(resized))
        return logits

    with torch.inference_mode():
        error = (run_published() - merged(images)).abs().max() / merged(images).abs().max()
        times_ms = race({"published": run_published, "merged": partial(merged, images)}, 60)
    ratio = paired_ratio(times_ms["merged"], times_ms["published"])
    said = {"resolution": 512, "batch_size": 1, "head": "segformer", "relative_error": float(error)}
    print(json.dumps(said | {"merged_by_published": [round(value, 3) for value in ratio]}))


def main() -> int:
    torch.set_num_threads(1)
    if "segformer" in sys.argv[1:]:
        bench_segformer()
        return 0
    naive, plain = NaiveHRViT(CONFIG), create_model(CONFIG)
    randomize_norms(naive)
    load_published(plain, naive.state_dict())
    if "training" in sys.argv[1:]:
        images = torch.randn(8, 3, 224, 224)
        calls: Calls = {
            NAIVE: step(naive, images),
            "ours": step(plain, images),
            "ours bfloat16": step(copy.deepcopy(plain).bfloat16(), images.bfloat16()),
        }
        if "compiled" in sys.argv[1:]:
            blocks = copy.deepcopy(plain)
            compile_blocks(blocks)
            calls["ours, compiled"] = step(blocks, images)
        report({"training": True, "resolution": 224, "batch_size": 8}, race(calls, 120))
        peaks = [measure_peak_memory(m, 224, batch_size=8, training=True) for m in (naive, plain)]
        print(json.dumps({"peak_memory_mib": dict(zip((NAIVE, "ours"), peaks, strict=True))}))
        return 0
    naive.eval()
    plain.eval()
    served = deploy(plain)
    cpu = torch.device("cpu")
    with torch.inference_mode():
        gemm = max(time_products(cpu, torch.float32, clock=time.perf_counter, seconds=4.0), key=lambda p: p.flop_s)
        product = PRODUCTS[gemm.product](gemm.side, cpu, torch.float32)
    misses = []
    for resolution, batch_size in INFERENCE:
        images = torch.randn(batch_size, 3, resolution, resolution)
        calls = {
            NAIVE: partial(naive, images),
            "ours": partial(plain, images),
            "deployed": partial(served, images),
            "packed": partial(pack(served, images), images),
            GEMM: product,
        }
        if "compiled" in sys.argv[1:]:
            calls["AOTInductor"], _ = compiled_ahead(Workload(served, images, cpu, CONFIG.name))
        if (resolution, batch_size) == (224, 8):
            rounded = images.bfloat16()
            calls["naive bfloat16"] = partial(copy.deepcopy(naive).bfloat16(), rounded)
            calls["deployed bfloat16"] = partial(deploy(plain).bfloat16(), rounded)
            calls["packed bfloat16"] = partial(pack(deploy(plain).bfloat16(), rounded), rounded)
        with torch.inference_mode():
            times_ms = race(calls, 120)
        macs = batch_size * totals(CONFIG, resolution).macs
        said = report({"resolution": resolution, "batch_size": batch_size}, times_ms, macs, gemm)
        misses.append(missed(resolution, batch_size, said))
    for miss in filter(None, misses):
        print(f"missed: {miss}", file=sys.stderr)
    return int(any(misses))


if __name__ == "__main__":
    sys.exit(main())
