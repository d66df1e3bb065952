"""What classification alone allows on composites: ``python tests/bench_composites.py`` prints one JSON line a network.

Each item of the 1,000 test scenes gets the class that a trained classifier gives to it alone: upright, centred, on
black ground, as in Fashion-MNIST. All pixels of the item get that class, and all others are background.

- ``miou``: with exact outlines.
- ``miou_quarter``: with outlines at a quarter of the height and width, as a segmenter's logits: shares of each class in
  4 × 4 pixels, bilinearly enlarged.

This estimates what a segmenter reaches that classifies items as well as these networks, although it sees them small,
tinted and partly covered. ``truth`` is a classifier without errors. It takes 3 minutes on one core.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrvit_lab.network.named import open_network
from hrvit_lab.train.assemble import make_transforms
from hrvit_lab.train.data.composites import (
    BACKGROUND,
    DRAWS_BEFORE,
    DRAWS_PER_ITEM,
    MAX_ITEMS,
    Composites,
    open_composites,
    uniform,
)
from hrvit_lab.train.data.samples import open_samples
from hrvit_lab.train.recipe import load_recipe
from hrvit_lab.train.scores import ConfusionMatrix, scores

NETWORKS = ("hrvit_nano.fashion_mnist", "hrvit_micro.fashion_mnist")
CLASSES = BACKGROUND + 1


def classes_by(name: str) -> np.ndarray:
    """The class that a network gives to each test image of Fashion-MNIST, (10,000,)."""
    model, samples = open_network(name).model, open_samples("fashion_mnist", "val")
    transform = make_transforms(load_recipe("fashion_mnist", name))[1]
    found = []
    with torch.inference_mode():
        for start in range(0, len(samples), 250):
            images = [transform(*samples[index])[0] for index in range(start, start + 250)]
            found.append(model(torch.stack(images)).argmax(1))
    return torch.cat(found).numpy()


def items_of(scenes: Composites, index: int) -> list[int]:
    """The test images that a scene shows, in the order in which they are drawn."""
    draws = uniform("composites", "val", index, DRAWS_BEFORE + DRAWS_PER_ITEM * MAX_ITEMS)
    placed = draws[DRAWS_BEFORE:].reshape(MAX_ITEMS, -1)[: 1 + int(draws[0] * MAX_ITEMS)]
    return [int(item[0] * len(scenes.items)) for item in placed]


def at_a_quarter(labels_HW: Tensor) -> Tensor:
    """Labels after shares in 4 × 4 pixels, bilinearly enlarged."""
    shares = F.avg_pool2d(F.one_hot(labels_HW, CLASSES).permute(2, 0, 1)[None].float(), 4)
    return F.interpolate(shares, labels_HW.shape, mode="bilinear")[0].argmax(0)


def main() -> None:
    torch.set_num_threads(1)
    scenes = open_composites("val", None)
    for name in ("truth", *NETWORKS):
        classes = scenes.labels.astype(np.int64) if name == "truth" else classes_by(name)
        exact, quarter = ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES)
        for index in range(len(scenes)):
            _, labels_HW, numbers_HW = scenes.drawn(index)
            by_number = torch.from_numpy(np.array([BACKGROUND, *classes[items_of(scenes, index)]]))
            truth_HW, guess_HW = torch.from_numpy(labels_HW), by_number[torch.from_numpy(numbers_HW).long()]
            exact.update(guess_HW, truth_HW)
            quarter.update(at_a_quarter(guess_HW), truth_HW)
        shares = {
            "top1": float((classes == scenes.labels).mean()),
            "miou": scores(exact).miou,
            "miou_quarter": scores(quarter).miou,
        }
        print(json.dumps({"classes": name, **{key: round(100 * it, 2) for key, it in shares.items()}}), flush=True)


if __name__ == "__main__":
    main()
