"""Training throughput of hrvit_b1 through the whole loop: ``python tests/bench_training.py`` prints one JSON line.

The recipe ``imagenet_hrvit`` at 224 × 224 with batches of 8 on one thread: its own augmentation from JPEG files of
500 × 375 pixels in this process, mixing, loss, clipping and optimiser. Ours and the naive witness (``tests/naive.py``)
have the same initial weights and take turns in one race. The witness has no stochastic depth and dropout: both are off.

- ``x_naive``: time of a naive step divided by ours, the median over rounds with its 95 % interval.
- ``step_by_loader``: our step divided by the time in which the loader alone makes a batch.

The exit code is 1 if a goal is missed. It takes about 4 minutes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from naive import NaiveHRViT
from PIL import Image
from torch import nn

from hrvit_lab.config import PRESETS
from hrvit_lab.latency.compare import Budget, compare, paired_ratio
from hrvit_lab.latency.timing import cpu_stopwatch
from hrvit_lab.network.build import create_model
from hrvit_lab.network.checkpoints import load_published
from hrvit_lab.train.assemble import make_engine, make_mixing, make_plan, make_transforms, open_split
from hrvit_lab.train.data.samples import Samples
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.loader import Batch, training_batches
from hrvit_lab.train.recipe import AnyRecipe, load_recipe

GOAL_X_NAIVE, GOAL_STEP_BY_LOADER = 1.2, 3.0
SETTINGS = [
    ("data.batch_size_per_process", 8), ("data.global_batch_size", 8), ("regularisation.drop_path", 0.0),
    ("regularisation.head_drop", 0.0), ("regularisation.ema", False), ("precision.dtype", "float32"),
    ("precision.sync_batch_norm", False),
]  # fmt: skip
IMAGES, CLASSES = 64, 10


def write_images(root: Path) -> None:
    """A data set in ImageNet's layout: smooth noise as JPEG files."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(IMAGES):
            folder = root / split / f"class{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)


def batches_of(recipe: AnyRecipe, samples: Samples) -> Iterator[Batch]:
    """The batches of a training that does not end."""
    return training_batches(
        samples, make_transforms(recipe)[0], batch_size=8, seed=0, start=0, stop=10**6, ranks=Ranks(), workers=0
    )


def step_of(recipe: AnyRecipe, model: nn.Module, samples: Samples) -> Callable[[], object]:
    """A step of the whole loop."""
    plan = make_plan(recipe, len(samples))
    engine = make_engine(recipe, model, plan, Ranks())
    stream, mix = batches_of(recipe, samples), make_mixing(recipe, CLASSES, plan, Ranks())

    def step() -> None:
        batch = next(stream)
        batch = batch if mix is None else mix(batch, engine.step)
        engine.train_step(batch.images, batch.targets, plan.global_batch)

    return step


def main() -> int:
    torch.set_num_threads(1)
    config = PRESETS["hrvit_b1"].replace(num_classes=CLASSES)
    naive, ours = NaiveHRViT(config), create_model(config)
    load_published(ours, naive.state_dict())
    recipe = load_recipe("imagenet_hrvit", "hrvit_b1", SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        samples = open_split(recipe, "train", Path(folder))
        calls = {"naive": step_of(recipe, naive, samples), "ours": step_of(recipe, ours, samples)}
        for call in calls.values():
            call()
        watches = {name: cpu_stopwatch(call, time.perf_counter) for name, call in calls.items()}
        rounds = compare(watches, Budget(min_rounds=9, max_seconds=180.0))
        stream, loader_ms = batches_of(recipe, samples), []
        for _ in range(16):
            began = time.perf_counter()
            next(stream)
            loader_ms.append(1e3 * (time.perf_counter() - began))
    ours_ms = rounds.wall_ms("ours")
    ratio = paired_ratio(rounds.wall_ms("naive"), ours_ms)
    share = median(ours_ms) / median(loader_ms)
    result = {
        "x_naive": [round(value, 3) for value in ratio],
        "images_per_s": round(8e3 / median(ours_ms), 2),
        "loader_images_per_s": round(8e3 / median(loader_ms), 1),
        "step_by_loader": round(share, 1),
        "rounds": len(ours_ms),
    }
    print(json.dumps(result))
    return int(ratio.value < GOAL_X_NAIVE or share < GOAL_STEP_BY_LOADER)


if __name__ == "__main__":
    sys.exit(main())
