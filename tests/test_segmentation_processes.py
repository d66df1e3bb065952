"""Segmentation by several processes: the same steps and the same integers as by one, for each head."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_engine import SMALL, prepare, run_processes
from test_recipe_training import TINY
from test_segmentation_training import make_pairs, settings
from test_several_processes import run_two
from torch import Tensor, nn

from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.network.build import build
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.datasets import Task
from hrvit_lab.train.distributed import joined
from hrvit_lab.train.engine import Engine, EngineOptions
from hrvit_lab.train.inference import InferenceOptions
from hrvit_lab.train.loader import evaluation_batches, training_batches
from hrvit_lab.train.tasks import TASKS

SIZES = ((24, 32), (24, 32), (32, 24), (16, 40))
LEARNING_RATE = 0.05


class Scenes:
    """Noise with masks of five classes and ignored pixels; of one size, or of several."""

    class_names = tuple("abcde")
    task: Task = "segmentation"

    def __init__(self, number: int, sizes: tuple[tuple[int, int], ...]) -> None:
        draw = np.random.default_rng(number)
        self.scenes = []
        for index in range(number):
            size = sizes[index % len(sizes)]
            labels = draw.integers(0, 6, size)
            self.scenes.append((draw.random((3, *size), dtype=np.float32), np.where(labels == 5, 255, labels)))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Any:
        return self.scenes[index]

    def name(self, index: int) -> str:
        return f"scene {index}"


def plain(image: Any, target: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(image), torch.from_numpy(target)


def segmenter(head: str) -> nn.Module:
    return build(SMALL.replace(head=head, segformer_width=8, upernet_width=8))


def train_and_score(rank: int, size: int, port: int, out: str, head: str) -> None:
    """The work of one of several processes; the first one writes the result."""
    prepare(rank, size, port)
    with joined(torch.device("cpu")) as ranks:
        torch.manual_seed(0)
        model = segmenter(head)
        engine = Engine(
            model, TASKS["segmentation"].make_loss(0.0, 0.4), torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
            lambda _: LEARNING_RATE, EngineOptions(sync_batch_norm=True), seed=0, ranks=ranks,
        )  # fmt: skip
        scenes = Scenes(12, ((32, 32),))
        for batch in training_batches(scenes, plain, batch_size=7, seed=3, start=0, stop=4, ranks=ranks):
            engine.train_step(batch.images, batch.targets, 7)
        torch.manual_seed(1)
        scored = segmenter(head).eval()
        done = TASKS["segmentation"].evaluate(
            scored, evaluation_batches(Scenes(23, SIZES), plain, batch_size=3, ranks=ranks), 5, ranks,
            InferenceOptions(), None,
        )  # fmt: skip
        if ranks.first:
            result = {"model": model.state_dict(), "matrix": done.matrix, "n": done.n_seen, "scores": done.scores}
            torch.save(result, out)


@pytest.mark.parametrize("head", ["segformer", "upernet"])
def test_several_processes_segment_like_one(head: str, tmp_path: Path) -> None:
    """The same global batches of 7 scenes, so that parts are of unlike sizes; BatchNorm over all of them. Every
    parameter has a gradient in every process, else the step would end with an error.

    23 scenes of four sizes are scored by a network with the same weights in all processes.
    """
    alone = run_processes(1, tmp_path, train_and_score, head)
    together = run_processes(3, tmp_path, train_and_score, head)
    for name, tensor in alone["model"].items():
        torch.testing.assert_close(together["model"][name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    assert together["n"] == alone["n"] == 23
    pixels = sum(int((mask != 255).sum()) for _, mask in Scenes(23, SIZES).scenes)
    assert torch.equal(together["matrix"], alone["matrix"]) and alone["matrix"].sum() == pixels
    assert together["scores"] == alone["scores"]


@pytest.mark.slow
def test_two_processes_keep_the_label_maps_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pairs(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY + "segformer_width: 8\n")
    monkeypatch.chdir(tmp_path)
    changes = settings({"data.name": "mask_folder", "schedule.iterations": 1, "evaluation.every_iterations": 1})
    assert main(["ade20k_segformer", "--data", "data", "--out", "whole", "--set", changes]) == 0
    command = ["whole", "--data", "data", "--set", "run.workers=0,evaluation.base_size_px=null", "--out"]
    assert evaluate([*command, "one"]) == 0
    assert run_two("hrvit_lab.evaluate", *command, "two") == [(0, ""), (0, "")]
    one, two = ({path.name: path.read_bytes() for path in Path(name).rglob("*.[pc]*")} for name in ("one", "two"))
    assert one == two and sorted(name for name in one if name.endswith(".png")) == [f"{i:06d}.png" for i in range(3)]
