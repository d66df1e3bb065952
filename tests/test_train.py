"""The training loop compared with scikit-learn, torch's own schedulers, naive loops and hand counts."""

import json
import math
import pickle
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from forked import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.network.build import build
from hrvit_lab.network.seeding import seeded
from hrvit_lab.parts import ATTENTION
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.batches import steps_per_epoch, trains_on_one_image
from hrvit_lab.train.data import ImageData, load_dataset
from hrvit_lab.train.loop import (
    EVAL_BATCH_SIZE,
    TrainingDiverged,
    TrainResult,
    evaluate,
    fit,
    learning_rate,
    make_optimizer,
    random_shift,
)
from hrvit_lab.train.options import TrainOptions

QUICK = TrainOptions(epochs=2, batch_size=32, learning_rate=0.01, train_limit=200, threads=1)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("digits", resolution=8)


class SmallCNN(nn.Sequential):
    """Norm, dropout and two convolutions, so that determinism and evaluation mode matter."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 10),
        )  # fmt: skip


class Linear(nn.Sequential):
    """Multinomial logistic regression on the first (of three equal) channels."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 64, 10))


def train(
    model: type[nn.Module], data: ImageData, options: TrainOptions, seed: int = 0
) -> tuple[nn.Module, TrainResult]:
    with seeded(seed):
        network = model()
    return network, fit(network, data, options, seed)


def figures(result: TrainResult) -> list[dict[str, Any]]:
    """The curves without times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in result.curves]


def probabilities(model: nn.Module, x: Tensor) -> np.ndarray:
    """Computed for one image at a time, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return np.stack([model(image[None])[0].double().softmax(0).numpy() for image in x])


# -- does it learn ---------------------------------------------------------------------------------


def test_a_linear_model_reaches_the_accuracy_of_scikit_learn(digits: ImageData) -> None:
    options = TrainOptions(
        epochs=60, batch_size=64, learning_rate=0.01, weight_decay=0, max_shift=0, grad_clip_value=None
    )
    _, result = train(Linear, digits, options)
    x_train, x_val = (
        digits.inputs(images)[:, 0].flatten(1).numpy() for images in (digits.train_images, digits.val_images)
    )
    probe = LogisticRegression(max_iter=1000).fit(x_train, digits.train_labels)
    theirs = 100 * probe.score(x_val, digits.val_labels)
    assert theirs > 90
    assert result.top1 == pytest.approx(theirs, abs=2)
    assert result.curves[-1]["train_top1"] == pytest.approx(100 * probe.score(x_train, digits.train_labels), abs=2)


def test_shuffled_labels_cannot_be_learned(digits: ImageData) -> None:
    """If validation images or labels leaked into the training, accuracy would be far above chance."""
    shuffled = digits.train_labels[torch.randperm(len(digits.train_labels), generator=torch.Generator().manual_seed(0))]
    data = ImageData(**{**vars(digits), "train_labels": shuffled})
    _, result = train(SmallCNN, data, QUICK)
    assert result.top1 < 25
    assert digits.majority_top1 < 11


def test_convolutions_are_far_better_than_the_majority_class(digits: ImageData) -> None:
    _, result = train(SmallCNN, digits, TrainOptions(epochs=3, batch_size=32, learning_rate=0.01))
    assert result.top1 > 85
    assert result.top1 == result.curves[-1]["val_top1"]
    assert result.curves[-1]["train_loss"] < result.curves[0]["train_loss"]


# -- is it measured right --------------------------------------------------------------------------


def test_top1_equals_a_hand_count() -> None:
    """The model predicts each image's first pixel as its class; 5 of 7 are correct."""
    named, labels = [0, 1, 2, 2, 1, 0, 0], [0, 1, 2, 2, 1, 1, 2]
    images = torch.tensor(named, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 1, 2, 2)

    class NamesFirstPixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(5.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * F.one_hot((x[:, 0, 0, 0] * 255).round().long(), 3).float()

    data = ImageData(
        images, torch.tensor(labels), images, torch.tensor(labels), ("a", "b", "c"),
        name="test", source="test", resolution=(2, 2), mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    loss, top1 = evaluate(NamesFirstPixel(), data)
    right, wrong = (-math.log(math.exp(logit) / (math.exp(5) + 2)) for logit in (5, 0))
    assert top1 == pytest.approx(100 * 5 / 7)
    assert loss == pytest.approx((5 * right + 2 * wrong) / 7)


def test_evaluation_equals_scikit_learns_scores_image_by_image(digits: ImageData) -> None:
    assert len(digits.val_labels) % EVAL_BATCH_SIZE, "the last batch must be a partial one, or this shows too little"
    model, _ = train(SmallCNN, digits, QUICK)
    loss, top1 = evaluate(model, digits)
    p = probabilities(model, digits.inputs(digits.val_images))
    assert top1 == pytest.approx(100 * accuracy_score(digits.val_labels, p.argmax(1)))
    assert loss == pytest.approx(log_loss(digits.val_labels, p), rel=1e-5)


def test_evaluation_changes_nothing_in_the_model(digits: ImageData) -> None:
    with seeded(0):
        model = SmallCNN().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert evaluate(model, digits) == evaluate(model, digits)  # no dropout
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.5])
def test_training_scores_equal_those_of_the_training_images_used(digits: ImageData, label_smoothing: float) -> None:
    """With one step per epoch, the first row is that of the untrained model, with or without label smoothing."""
    with seeded(3):
        model = Linear()
    p = probabilities(model, digits.inputs(digits.train_images))
    options = TrainOptions(epochs=1, batch_size=60_000, max_shift=0, label_smoothing=label_smoothing)
    row = fit(model, digits, options, 0).curves[0]
    assert row["train_loss"] == pytest.approx(log_loss(digits.train_labels, p), rel=1e-5)
    assert row["train_top1"] == pytest.approx(100 * accuracy_score(digits.train_labels, p.argmax(1)))


def test_every_image_is_used_once_per_epoch(digits: ImageData) -> None:
    seen: list[Tensor] = []

    class Spy(Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x[:, 0].flatten(1))
            return super().forward(x)

    data = digits.limited(101)
    fit(Spy(), data, TrainOptions(epochs=1, batch_size=10, max_shift=0), 0)
    assert [len(batch) for batch in seen] == [10, 10] + [9] * 9 or sorted(map(len, seen)) == [9] * 9 + [10] * 2
    ours = sorted(torch.cat(seen).tolist())
    theirs = sorted(data.inputs(data.train_images)[:, 0].flatten(1).tolist())
    assert ours == theirs


# -- steps of one image ----------------------------------------------------------------------------


class NormAfterPooling(nn.Sequential):
    """A BatchNorm with one value per channel of an image."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 10)
        )


def batch_sizes(model: nn.Module, data: ImageData, options: TrainOptions) -> list[int]:
    """Number of images of each training step."""
    sizes: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training and torch.is_grad_enabled():
            sizes.append(len(inputs[0]))

    with model.register_forward_pre_hook(note):
        fit(model, data, options, 0)
    return sizes


@pytest.mark.parametrize(("images", "expected"), [(21, [3] + 9 * [2]), (20, 10 * [2]), (23, [3] + 10 * [2])])
def test_no_step_has_one_image_if_a_batch_norm_has_one_value_per_image(
    digits: ImageData, images: int, expected: list[int]
) -> None:
    """Earlier, 21 images at batch size 2 ended with a batch of one, and with a traceback."""
    options = TrainOptions(epochs=1, batch_size=2, train_limit=images)
    assert sorted(batch_sizes(NormAfterPooling(), digits, options), reverse=True) == expected


def test_other_networks_keep_a_step_of_one_image(digits: ImageData) -> None:
    """A BatchNorm with many values per channel, and no BatchNorm; so earlier results are unchanged."""
    for model in (SmallCNN(), Linear()):
        options = TrainOptions(epochs=1, batch_size=2, train_limit=21)
        assert sorted(batch_sizes(model, digits, options)) == [1] + 10 * [2]
        assert batch_sizes(model, digits, options.model_copy(update={"batch_size": 1})) == 21 * [1]


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 500), st.integers(2, 64))
def test_batches_have_the_requested_size_and_more_than_one_image(num_images: int, batch_size: int) -> None:
    image = torch.zeros(1, 3, 8, 8)
    free, bound = (steps_per_epoch(model, image, num_images, batch_size) for model in (Linear(), NormAfterPooling()))
    sizes = [len(part) for part in torch.arange(num_images).tensor_split(bound)]
    assert free == math.ceil(num_images / batch_size)
    assert min(sizes) >= 2 and max(sizes) <= batch_size + (batch_size == 2)
    assert bound == free or (batch_size == 2 and num_images % 2)


@pytest.mark.parametrize(
    ("fields", "resolution", "one"),
    [
        ({}, 32, False), ({}, 64, True), ({"head": "segformer"}, 64, True), ({"head": "upernet"}, 64, False),
    ],
)  # fmt: skip
def test_which_networks_train_on_one_image(fields: dict[str, Any], resolution: int, one: bool) -> None:
    """At 32 pixels the coarsest map has one value; UperNet pools to one value at every size."""
    model = build(HRViTConfig.from_dict({"preset": "hrvit_nano", "num_classes": 10, **fields}))
    image = torch.randn(1, 3, resolution, resolution)
    assert trains_on_one_image(model, image) == one
    model.train()
    if one:
        model(image)
    else:
        with pytest.raises(ValueError, match="more than 1 value"):
            model(image)


def test_a_batch_of_one_is_refused_before_anything_runs(digits: ImageData) -> None:
    model = NormAfterPooling()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(
        ConfigError,
        match=r"^batch_size = 1 .* a single value per channel at 8×8 pixels; use at least 2 images per step",
    ):
        fit(model, digits, TrainOptions(batch_size=1, train_limit=20), 0, on_step=lambda *_: pytest.fail("it ran"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


# -- does it repeat --------------------------------------------------------------------------------


def test_results_are_equal_bit_by_bit_for_equal_seeds_only(digits: ImageData) -> None:
    model, first = train(SmallCNN, digits, QUICK, seed=1)
    torch.rand(5)  # earlier random numbers must have no effect
    again, second = train(SmallCNN, digits, QUICK, seed=1)
    _, other = train(SmallCNN, digits, QUICK, seed=2)
    assert figures(first) == figures(second)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert figures(first) != figures(other)


def test_hrvit_training_is_reproducible_bit_by_bit() -> None:
    config = HRViTConfig.from_dict({"preset": "hrvit_nano", "num_classes": 10, "drop_path_rate": 0.2, "drop_rate": 0.2})
    data = load_dataset("digits", resolution=32)
    options = TrainOptions(epochs=1, batch_size=20, train_limit=40)
    results = []
    for _ in range(2):
        with seeded(5):
            model = build(config)
        results.append(figures(fit(model, data, options, 5)))
    assert results[0] == results[1]


def test_cpu_seconds_equal_those_of_this_process(digits: ImageData) -> None:
    """A step that sleeps takes wall time but no CPU time, like a step that waits for a busy core."""
    model, options = Linear(), TrainOptions(epochs=1, batch_size=64, train_limit=256)
    started = time.process_time()
    result = fit(model, digits, options, 0, on_step=lambda *_: time.sleep(0.2))
    spent = time.process_time() - started
    assert result.seconds > 4 * 0.2
    assert 0 < result.cpu_seconds <= spent
    assert result.seconds - result.cpu_seconds > 0.7


@pytest.mark.parametrize("ends_by", [None, KeyboardInterrupt, RuntimeError])
def test_no_global_state_is_left_changed(digits: ImageData, ends_by: type[BaseException] | None) -> None:
    def on_epoch(row: Any) -> None:
        if ends_by is not None:
            raise ends_by

    def state() -> tuple[Any, ...]:
        flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
        return (
            torch.get_num_threads(),
            flags,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
        )

    with seeded(0):
        model = SmallCNN()
    before, random = state(), torch.get_rng_state()
    options = QUICK.model_copy(update={"threads": torch.get_num_threads() + 1})
    if ends_by is None:
        fit(model, digits, options, 0, on_epoch)
    else:
        with pytest.raises(ends_by):
            fit(model, digits, options, 0, on_epoch)
    assert state() == before
    assert torch.equal(torch.get_rng_state(), random)


# -- its parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "warmup"), [(50, 10), (50, 0), (7, 1)])
def test_learning_rates_equal_those_of_torchs_schedulers(total: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=0.003)
    theirs = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - warmup):
        optimizer.step()
        cosine.step()
        theirs.append(optimizer.param_groups[0]["lr"])
    ours = [learning_rate(step, total, warmup, 0.3) for step in range(1, total + 1)]
    assert ours[warmup:] == pytest.approx(theirs[1:])
    assert ours[:warmup] == pytest.approx([0.3 * (i + 1) / warmup for i in range(warmup)])
    assert ours[-1] == pytest.approx(0.003)


def test_with_a_warmup_longer_than_the_training_the_rate_only_rises(digits: ImageData) -> None:
    _, result = train(Linear, digits, QUICK.model_copy(update={"warmup_epochs": 4.0}))
    assert [row["learning_rate"] for row in result.curves] == pytest.approx([0.0025, 0.005])


def test_norms_and_biases_do_not_decay(digits: ImageData) -> None:
    model = SmallCNN()
    optimizer = make_optimizer(model, TrainOptions(learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        nn.init.ones_(p) if p.ndim == 1 else None
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        expected = torch.ones_like(p) if p.ndim == 1 else before[name] * (1 - 0.1 * 0.5)
        torch.testing.assert_close(p.detach(), expected)


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of the parameters to which an optimizer applies weight decay."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}


@pytest.mark.parametrize("attention", ATTENTION)
def test_only_kernels_and_matrices_decay(attention: str) -> None:
    """Every variant's parameters by the module that owns them: linears' and convolutions' weights, and no others."""
    model = build(HRViTConfig.from_dict({"preset": "hrvit_nano", "attention": [attention] * 4}))
    kernels = {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    }
    assert decayed(model, make_optimizer(model, TrainOptions())) == kernels
    tables = {name for name, p in model.named_parameters() if p.ndim > 1} - kernels
    assert tables == model.no_weight_decay()
    assert bool(tables) == (attention in ("window", "shifted_window"))


@pytest.mark.parametrize("name", ["hrvit_nano", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_weight_decay_applies_to_the_same_parameters_as_in_timm(name: str) -> None:
    """timm's factory calls ``no_weight_decay`` itself."""
    model = timm.create_model(name, attention=["window"] * 4) if name == "hrvit_nano" else timm.create_model(name)
    theirs = create_optimizer_v2(model, opt="adamw", weight_decay=0.05)
    ours = decayed(model, make_optimizer(model, TrainOptions()))
    assert ours == decayed(model, theirs)
    tables = ("relative_bias", "relative_position_bias_table", "pos_embed")
    assert any(table in key for key in model.state_dict() for table in tables)
    assert not any(table in key for key in ours for table in tables)


@pytest.mark.parametrize("clip", [1e-3, None])
def test_gradients_are_clipped_by_value(digits: ImageData, clip: float | None) -> None:
    model, _ = train(Linear, digits, QUICK.model_copy(update={"grad_clip_value": clip}))
    largest = max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-3) if clip else largest > 2e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.integers(0, 99))
def test_shift_is_a_crop_of_the_padded_image(height: int, width: int, max_shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 3, height, width, generator=generator)
    shifted = random_shift(x, max_shift, generator)
    ry, rx = round(max_shift * height), round(max_shift * width)
    for image, moved in zip(x.numpy(), shifted.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (ry, ry), (rx, rx)), mode="edge")
        crops = [padded[:, y : y + height, x : x + width] for y in range(2 * ry + 1) for x in range(2 * rx + 1)]
        assert any(np.array_equal(moved, crop) for crop in crops)


def test_shift_reaches_every_place_equally_often() -> None:
    x = torch.zeros(9000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    spots = random_shift(x, 0.2, torch.Generator().manual_seed(0)).sum(0)[0]
    assert (spots[1:4, 1:4] > 850).all() and (spots[1:4, 1:4] < 1150).all()
    assert spots.sum() == 9000


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("learning_rate", math.nan),
     ("weight_decay", -1), ("label_smoothing", 1), ("max_shift", 0.6), ("threads", 0), ("grad_clip_value", 0),
     ("train_limit", 0), ("momentum", 0.9)],
)  # fmt: skip
def test_options_out_of_range_name_the_field(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainOptions(**{name: value})


# -- when it goes wrong ----------------------------------------------------------------------------


def test_divergence_names_epoch_and_step(digits: ImageData) -> None:
    class BlowsUp(Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            return super().forward(x) * (math.inf if self.calls == 10 else 1)

    with pytest.raises(TrainingDiverged, match=r"training loss .* epoch 2, step 10; lower learning_rate") as caught:
        fit(BlowsUp(), digits, QUICK, 0)  # 7 steps an epoch
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "workers hand it on"


def test_weights_that_explode_in_the_last_step_are_noticed(digits: ImageData) -> None:
    class BadAtValidation(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 if self.training else math.nan)

    with pytest.raises(TrainingDiverged, match="validation loss is not finite in epoch 1"):
        fit(BadAtValidation(), digits, QUICK, 0)


def test_a_model_with_another_number_of_classes_is_refused(digits: ImageData) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1000))
    with pytest.raises(ConfigError, match=r"build it with num_classes=10"):
        fit(model, digits, QUICK, 0)


@pytest.mark.parametrize("head", ["segformer", "upernet", "none"])
def test_a_model_that_returns_maps_is_refused(digits: ImageData, head: str) -> None:
    model = build(HRViTConfig(depths=((1,),), widths=8, head_dims=4, head=head, num_classes=10)).train()
    with pytest.raises(ConfigError, match=r"^head: the model returns feature maps.* build it with head='classifier'"):
        fit(model, digits, QUICK, 0)
    assert model.training, "it is left as it was"


@pytest.mark.gpu
def test_training_on_cuda_gives_the_same_accuracy(digits: ImageData) -> None:
    options = TrainOptions(epochs=20, batch_size=64, learning_rate=0.01, max_shift=0)
    with seeded(0):
        on_cpu, on_gpu = Linear(), Linear().cuda()
    on_gpu.load_state_dict(on_cpu.state_dict())
    ours, theirs = fit(on_gpu, digits, options, 0), fit(on_cpu, digits, options, 0)
    assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-3)


# -- the command -----------------------------------------------------------------------------------

COMMAND = ["hrvit_nano", "--resolution", "32", "--epochs", "1", "--train-limit", "40", "--batch-size", "20"]


def test_the_command_writes_curves_result_and_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--seed", "3", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    assert result["status"] == "complete"
    assert result["label"] == "top-1 on digits (proxy)"
    assert f"top-1 on digits (proxy): {result['top1']:.2f} %" in printed
    assert str(tmp_path / "run") in printed
    assert len(curves) == result["epochs_done"] == 1
    assert curves["val_top1"].iloc[-1] == result["top1"]
    assert (result["seed"], result["train"]["train_limit"], result["data"]["train_images"]) == (3, 40, 40)

    config = HRViTConfig.from_yaml((tmp_path / "run" / "config.yaml").read_text())
    assert config.id == result["config_id"]
    model = build(config)
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    data = load_dataset("digits", resolution=32, train_limit=40)
    assert evaluate(model, data) == pytest.approx((result["val_loss"], result["top1"]), rel=1e-4)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hrvit_nanno"], "did you mean 'hrvit_nano'"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["hrvit_nano", "--data", "digit"], "did you mean 'digits'"),
        (["hrvit_nano", "--data", "folder"], "needs a root"),
        (["hrvit_nano", "--epochs", "many"], "epochs = 'many'"),
        (["hrvit_nano", "--learning-rate", "-1"], "learning_rate = '-1'"),
        (["hrvit_nano", "--train-limit", "3"], "at least 10"),
        (["hrvit_nano", "--resolution", "16"], "too small"),
        (["hrvit_nano", "--resolution", "5000"], "out of range"),
        (["hrvit_nano", "--resolution", "100000"], "1 to 65536 pixels a side"),
        (["hrvit_nano", "--resolution", "32", "--out", "/dev/null/x"], "choose another path"),
        pytest.param(["hrvit_nano", "--device", "cuda"], "torch sees 0 CUDA devices",
                     marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has one")),
    ],
)  # fmt: skip
def test_wrong_input_is_reported_in_one_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    "arguments", [[], ["hrvit_nano", "--resolution", "1x2x3"], ["hrvit_nano", "--device", "abacus"]]
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_a_diverged_training_is_reported_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *COMMAND,
        "--learning-rate",
        "10",
        "--epochs",
        "30",
        "--grad-clip-value",
        "1e30",
        "--warmup-epochs",
        "0",
    ]
    assert main([*arguments, "--weight-decay", "10", "--out", str(tmp_path)]) == 1
    assert "loss is not finite" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text())["status"].startswith("diverged: ")


def test_an_interrupted_command_keeps_its_results(tmp_path: Path) -> None:
    """Ctrl-C after the first epoch of many: exit code 130, complete files, no traceback."""
    process = Command("hrvit_lab.train", *COMMAND, "--epochs", "500", "--out", str(tmp_path))
    until = time.monotonic() + 250
    # The first row of the curves: a line of the output that begins with 1.
    while not re.search("^ *1 ", process.output, re.MULTILINE) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    code = process.returncode
    assert code == 130
    assert error.startswith("interrupted;") and len(error.splitlines()) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert 1 <= result["epochs_done"] < 500
    assert len(pd.read_csv(tmp_path / "curves.csv")) == result["epochs_done"]
    assert load_file(tmp_path / "model.safetensors")
