"""The loops of timm's train.py and validate.py, written with timm's functions, on our models and files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.models import load_checkpoint as timm_load
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3, accuracy
from torch import nn

from hrvit_lab import create_model, load_checkpoint
from hrvit_lab.train.data.samples import open_samples
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.inference import InferenceOptions
from hrvit_lab.train.loader import evaluation_batches
from hrvit_lab.train.run_folder import RunFolder
from hrvit_lab.train.tasks import evaluate_classification
from hrvit_lab.train.transforms import classify

CLASSES = 3

# timm's data set leaves the files of images open until they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 5)):
        for label in range(CLASSES):
            (root / split / f"class{label}").mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / f"class{label}" / f"{index}.png")
    return root


def loader_of_timm(root: Path, split: str, model: Any, **options: Any) -> Any:
    config = resolve_data_config({"img_size": 32}, model=model)
    dataset = create_dataset("", root=str(root), split=split, is_training=split == "train")
    return create_loader(
        dataset, input_size=config["input_size"], batch_size=4, interpolation=config["interpolation"],
        mean=config["mean"], std=config["std"], crop_pct=config["crop_pct"], num_workers=0, use_prefetcher=False,
        pin_memory=False, persistent_workers=False, device=torch.device("cpu"), **options,
    )  # fmt: skip


@torch.no_grad()
def validate(model: nn.Module, loader: Any) -> float:
    """Top-1 in percent, computed as in timm's validate.py."""
    right, seen = 0.0, 0
    for x_BCHW, y_B in loader:
        [top1] = accuracy(model(x_BCHW), y_B, topk=(1,))
        right, seen = right + float(top1) * len(y_B), seen + len(y_B)
    return right / seen


def test_timms_validation_and_our_evaluation_give_equal_scores(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = create_model("hrvit_nano", num_classes=CLASSES).eval()
    with torch.no_grad():
        # So that predictions differ between images.
        ours.get_submodule("head.classifier").get_parameter("weight").mul_(50)
    RunFolder(tmp_path).write_weights("last", ours)
    theirs: Any = timm.create_model("hrvit_nano", num_classes=CLASSES).eval()
    timm_load(theirs, str(tmp_path / "last.safetensors"))
    top1 = validate(theirs, loader_of_timm(images, "val", theirs))

    samples = open_samples("folder", "val", images)
    transform = classify.test_transform((32, 32), crop_fraction=0.9)
    batches = evaluation_batches(samples, lambda image, y: (transform(image), y), batch_size=4, ranks=Ranks())
    found = evaluate_classification(ours, batches, CLASSES, Ranks(), InferenceOptions())
    assert found.n_seen == 15 and found.scores["top1"] == pytest.approx(top1)
    assert 0 < top1 < 100


def test_timms_training_runs_and_our_loader_reads_its_checkpoint(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("hrvit_nano", num_classes=CLASSES, drop_path_rate=0.1)
    mixup = timm.data.Mixup(mixup_alpha=0.8, num_classes=CLASSES)
    loader = loader_of_timm(images, "train", model, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.25)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.9)
    scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=2, warmup_epochs=0)
    average = ModelEmaV3(model, decay=0.5)
    saver = CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=str(tmp_path), max_history=1)
    loss_of, before = SoftTargetCrossEntropy(), {key: value.clone() for key, value in model.state_dict().items()}
    for epoch in range(2):
        model.train()
        for x_BCHW, y_B in loader:
            x_BCHW, y_BC = mixup(x_BCHW, y_B)
            optimizer.zero_grad()
            loss_of(model(x_BCHW), y_BC).backward()
            optimizer.step()
            average.update(model)
        scheduler.step(epoch + 1)
        saver.save_checkpoint(epoch, metric=float(epoch))
    assert epochs == 2 and not torch.equal(model.stem.conv1.weight, before["stem.conv1.weight"])

    for ema, trained in ((False, model), (True, average.module)):
        ours = create_model("hrvit_nano", num_classes=CLASSES)
        load_checkpoint(ours, tmp_path / "last.pth.tar", ema=ema)
        expected = trained.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
