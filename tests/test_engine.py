"""The training engine: steps, order, resumption, several processes; compared with naive loops or uninterrupted
trainings."""

import math
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import psutil
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from torch import Tensor, nn

from hrvit_lab import HRViTConfig
from hrvit_lab.errors import ConfigError
from hrvit_lab.network.build import build
from hrvit_lab.train.assemble import make_engine, make_plan, number_of_passes
from hrvit_lab.train.data.order import epoch_order, mixed, rank_indices, seeded_sample
from hrvit_lab.train.datasets import Task
from hrvit_lab.train.distributed import Ranks, joined
from hrvit_lab.train.engine import Engine, EngineOptions
from hrvit_lab.train.inference import InferenceOptions
from hrvit_lab.train.loader import Batch, _sentences, evaluation_batches, steps_per_epoch, training_batches
from hrvit_lab.train.optim import make_optimizer, parameter_groups, rates
from hrvit_lab.train.recipe import AnyRecipe, load_recipe
from hrvit_lab.train.state import checkpoints, latest, load, save
from hrvit_lab.train.tasks import TASKS
from hrvit_lab.train.training import Listener, Plan, Progress, as_state, from_state, train

SMALL = HRViTConfig(
    depths=((1,), (1, 1)), widths=(8, 16), stem_width=8, head_dims=4, window_sizes=2, mlp_ratios=2, num_classes=5,
    head_widths=2, head_features=8,
)  # fmt: skip
EXTRA: dict[str, Any] = {
    "rows": [], "meter": {}, "recipe": {}, "config": {}, "versions": {}, "data": {},
}  # fmt: skip


class Pictures:
    """101 images of noise in five classes."""

    class_names = tuple("abcde")
    task: Task = "classification"

    def __init__(self, number: int = 101) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (number, 3, 16, 16), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.pixels[index], index % 5

    def name(self, index: int) -> str:
        return f"picture {index}"


def augmented(image: np.ndarray, target: int) -> tuple[Tensor, int]:
    """Draws random numbers from all three generators."""
    x_CHW = torch.from_numpy(image).float() / 255
    if random.random() < 0.5:
        x_CHW = x_CHW.flip(-1)
    return x_CHW + 0.1 * torch.randn(x_CHW.shape) + float(np.random.normal()) * 0.1, target


def blank(image: np.ndarray, target: int) -> tuple[Tensor, int]:
    return torch.zeros(1), target


def plain(image: np.ndarray, target: int) -> tuple[Tensor, int]:
    return torch.from_numpy(image).float() / 255, target


def made(seed: int = 0, **options: Any) -> Engine:
    torch.manual_seed(seed)
    model = build(SMALL)
    optimizer = make_optimizer("adamw", parameter_groups(model, 0.05), 1e-2, {})
    loss = TASKS["classification"].make_loss(0.1, 0.0)
    return Engine(
        model, loss, optimizer, rates("cosine", peak=1e-2, total=40, warmup=5), EngineOptions(**options), seed=seed,
        ranks=Ranks(),
    )  # fmt: skip


def steps(engine: Engine, stop: int, workers: int = 0) -> list[float]:
    stream = training_batches(
        Pictures(), augmented, batch_size=8, seed=3, start=engine.step, stop=stop, ranks=Ranks(), workers=workers
    )
    return [engine.train_step(batch.images, batch.targets, 8).loss for batch in stream]


# -- order -----------------------------------------------------------------------------------------------------------


def test_an_epoch_has_every_image_once_in_a_new_order() -> None:
    orders = {(seed, epoch): epoch_order(101, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert all(order.sort().values.tolist() == list(range(101)) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == 6
    assert torch.equal(orders[1, 2], epoch_order(101, 1, 2))


def test_random_numbers_of_neighbouring_keys_are_independent() -> None:
    """Half of all bits differ between neighbouring keys, and no two of many triples give equal numbers."""
    triples = [(seed, epoch, index) for seed in range(8) for epoch in range(8) for index in range(64)]
    assert len({mixed(*triple) for triple in triples}) == len(triples)
    flips = [(mixed(a, b, c) ^ mixed(a, b, c + 1)).bit_count() for a, b, c in triples]
    assert 31 < sum(flips) / len(flips) < 33
    assert mixed(1, 2) != mixed(2, 1)


def test_ranks_share_an_evaluation_without_repetition() -> None:
    for size in (1, 2, 3):
        parts = [list(rank_indices(101, rank, size)) for rank in range(size)]
        assert sorted(index for part in parts for index in part) == list(range(101))
        seen = [
            int(index)
            for rank in range(size)
            for batch in evaluation_batches(
                Pictures(), lambda x, y: (torch.zeros(1), y), batch_size=7, ranks=Ranks(rank, size)
            )
            for index in batch.indices
        ]
        assert sorted(seen) == list(range(101))


def test_a_sample_is_seeded_and_the_global_generators_continue() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    undisturbed = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw()
    with seeded_sample(0, 1, 2):
        inside = draw()
    assert [first, draw()] == undisturbed
    with seeded_sample(0, 1, 2):
        assert draw() == inside
    with seeded_sample(0, 1, 3):
        assert all(a != b for a, b in zip(draw(), inside, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_only_on_the_step(workers: int) -> None:
    """Started at the beginning or in the middle of an epoch, with or without workers, in one or two processes."""

    def batches(start: int, stop: int, ranks: Ranks = Ranks(), workers: int = workers) -> list[Any]:  # noqa: B008
        return list(
            training_batches(
                Pictures(), augmented, batch_size=8, seed=3, start=start, stop=stop, ranks=ranks, workers=workers
            )
        )

    assert steps_per_epoch(101, 8) == 12
    whole = batches(0, 16, workers=0)
    for step, batch in zip(range(9, 16), batches(9, 16), strict=True):
        assert torch.equal(batch.images, whole[step].images) and torch.equal(batch.targets, whole[step].targets)
        order, part = epoch_order(101, 3, step // 12), step % 12
        assert torch.equal(order[8 * part : 8 * part + 8], batch.indices)
    halves = [batches(9, 11, Ranks(rank, 2)) for rank in (0, 1)]
    for step in (9, 10):
        for rank in (0, 1):
            assert torch.equal(halves[rank][step - 9].images, whole[step].images[rank::2])


def test_a_worker_that_is_killed_is_reported_in_one_sentence() -> None:
    others = set(psutil.Process().children())
    stream = training_batches(
        Pictures(), augmented, batch_size=8, seed=0, start=0, stop=500, ranks=Ranks(), workers=2
    )  # fmt: skip
    next(stream)
    for worker in set(psutil.Process().children()) - others:
        worker.kill()
    with pytest.raises(ConfigError, match=r"^a data loader worker was killed"):
        list(stream)


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), EOFError(), RuntimeError("DataLoader worker (pid 1) is killed")]
)
def test_a_worker_that_is_killed_while_it_sends_a_batch_is_reported_in_one_sentence(error: Exception) -> None:
    class Loader:
        num_workers = 0

        def __iter__(self) -> Iterator[int]:
            yield 1
            raise error

    stream = _sentences(Loader())  # type: ignore[arg-type]
    assert next(stream) == 1
    with pytest.raises(ConfigError, match=r"^a data loader worker was killed"):
        next(stream)


def test_all_workers_end_after_an_error_in_one() -> None:
    """They end at once: remaining workers would keep Python from exiting."""

    def broken(image: Any, target: Any) -> Any:
        raise ConfigError("1.jpg is broken")

    others = set(psutil.Process().children())
    stream = training_batches(
        Pictures(), broken, batch_size=8, seed=0, start=0, stop=500, ranks=Ranks(), workers=2
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^1.jpg is broken$"):
        next(stream)
    assert not set(psutil.Process().children()) - others


def test_a_batch_that_cannot_be_split_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="a batch of 2 images cannot be split over 3 processes"):
        training_batches(Pictures(2), augmented, batch_size=8, seed=0, start=0, stop=1, ranks=Ranks(0, 3))


# -- optimiser -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "scheduler"), [("cosine", CosineLRScheduler), ("poly", PolyLRScheduler)])
def test_learning_rates_equal_those_of_timm(kind: Any, scheduler: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    options = {"power": 0.9} if kind == "poly" else {}
    theirs = scheduler(
        optimizer, t_initial=30, lr_min=0.001, warmup_t=5, warmup_lr_init=1e-3, t_in_epochs=False, **options
    )
    ours = rates(kind, peak=0.1, total=30, warmup=5, warmup_start=1e-3, minimum=0.001, power=0.9)
    for step in range(33):
        theirs.step_update(step)
        assert math.isclose(ours(step), optimizer.param_groups[0]["lr"], rel_tol=1e-12), step


def test_groups_contain_each_parameter_once_and_norms_have_no_weight_decay() -> None:
    model = build(SMALL)
    groups = parameter_groups(model, 0.05, head_rate=10.0)
    members = [parameter for group in groups for parameter in group["params"]]
    assert len(members) == len({*members}) == len(list(model.parameters()))
    head = set(model.head.parameters())  # type: ignore[union-attr]
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
            assert group["lr_scale"] == (10.0 if parameter in head else 1.0)


def test_layer_decay_equals_that_of_timm() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)
    ours = {p: g["lr_scale"] for g in parameter_groups(model, 0.05, layer_decay=0.5) for p in g["params"]}
    theirs = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    assert len({*ours.values()}) > 2
    assert all(ours[p] == group["lr_scale"] for group in theirs for p in group["params"])
    with pytest.raises(ConfigError, match="no group_matcher"):
        parameter_groups(nn.Linear(2, 2), 0.05, layer_decay=0.5)


def test_an_unknown_optimiser_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="optimiser 'adamx'"):
        make_optimizer("adamx", parameter_groups(nn.Linear(2, 2), 0.1), 0.1, {})


# -- steps -----------------------------------------------------------------------------------------------------------


def test_a_step_equals_that_of_a_naive_loop() -> None:
    engine = made(clip=0.5)
    torch.manual_seed(0)
    twin = build(SMALL)
    decayed = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], fused=True
    )
    curve = rates("cosine", peak=1e-2, total=40, warmup=5)
    twin.train()
    for step, batch in enumerate(
        training_batches(Pictures(), augmented, batch_size=8, seed=3, start=0, stop=4, ranks=Ranks())
    ):
        for group in optimizer.param_groups:
            group["lr"] = curve(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(batch.images), batch.targets, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_value_(twin.parameters(), 0.5)
        optimizer.step()
        assert math.isclose(engine.train_step(batch.images, batch.targets, 8).loss, loss.item(), rel_tol=1e-6)
    for ours, theirs in zip(engine.model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_equal_those_of_one_batch_without_batch_norm() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(768, 5)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, parts in zip(models, (1, 3), strict=True):
        engine = Engine(
            model, TASKS["classification"].make_loss(0.0, 0.0), torch.optim.SGD(model.parameters(), lr=0.1),
            lambda _: 0.1, EngineOptions(accumulate=parts), seed=0, ranks=Ranks(),
        )  # fmt: skip
        steps(engine, 3)
    torch.testing.assert_close(models[0][1].weight, models[1][1].weight, rtol=1e-5, atol=1e-7)


def test_the_moving_average_equals_a_naive_loop() -> None:
    engine = made(ema_decay=0.5)
    assert engine.averaged is not None
    kept: dict[str, Tensor] = {}
    for number in range(1, 5):
        steps(engine, number)
        weight = engine.model.state_dict()["stem.conv1.weight"].clone()
        kept["w"] = weight if number == 1 else 0.5 * kept["w"] + 0.5 * weight
    torch.testing.assert_close(engine.averaged.state_dict()["stem.conv1.weight"], kept["w"])


class FakeScaler:
    """Doubles the loss, and records the order in which it is called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def scale(self, loss: Tensor) -> Tensor:
        self.calls.append("scale")
        return 2 * loss

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("unscale")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= 2

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("step")
        optimizer.step()

    def update(self) -> None:
        self.calls.append("update")

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return 2.0


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    engine, plain = made(clip=0.01), made(clip=0.01)
    engine.scaler = fake = FakeScaler()  # type: ignore[assignment]
    assert steps(engine, 1) == steps(plain, 1)
    assert fake.calls == ["scale", "unscale", "step", "update"]
    for a, b in zip(engine.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)


# -- resumption ------------------------------------------------------------------------------------------------------


OPTIONS: dict[str, Any] = {
    "dtype": "bfloat16", "ema_decay": 0.9, "clip": 1.0, "clip_mode": "norm", "accumulate": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Engine, list[float]]:
    """The engine after 20 steps without interruption, and their losses."""
    whole = made(**OPTIONS)
    return whole, steps(whole, 20)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_resumed_within_an_epoch_has_equal_bits(
    tmp_path: Path, undisturbed: tuple[Engine, list[float]], workers: int
) -> None:
    """With augmentation, dropout, a moving average and bfloat16."""
    whole, losses = undisturbed
    first = made(**OPTIONS)
    before = steps(first, 7, workers)
    save(tmp_path, {**first.state(), **EXTRA}, keep=2)
    second = made(seed=0, **OPTIONS)
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.fill_(9.0)
    state, broken = latest(tmp_path)
    assert state is not None and broken == []
    second.load(state)
    assert before + steps(second, 20, workers) == losses
    for a, b in zip(whole.state()["model"].values(), second.state()["model"].values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.state()["ema"].values(), second.state()["ema"].values(), strict=True):
        assert torch.equal(a, b)


def test_checkpoints_are_kept_found_and_refused(tmp_path: Path) -> None:
    engine = made()
    for step in (9, 10, 100):
        engine.step = step
        save(tmp_path, {**engine.state(), **EXTRA}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000010.pt", "step-00000100.pt"]
    last = checkpoints(tmp_path)[-1]
    content = last.read_bytes()
    for spoilt, reason in ((content[: len(content) // 2], "cannot be read"), (b"", "cannot be read")):
        last.write_bytes(spoilt)
        state, broken = latest(tmp_path)
        assert state is not None and state["step"] == 10
        assert len(broken) == 1 and reason in broken[0] and "\n" not in broken[0]
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    for path, reason in (
        (tmp_path / "other.pt", "not a training state"), (tmp_path / "no.pt", "No such file"), (tmp_path, "not a file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            load(path)


def test_the_checkpoint_of_the_best_evaluation_is_kept(tmp_path: Path) -> None:
    engine = made()
    for step, best, kept in (
        (1, None, [1]), (2, 1, [1, 2]), (3, 1, [1, 3]), (4, 1, [1, 4]), (5, 5, [5]), (6, 5, [5, 6]),
    ):  # fmt: skip
        engine.step = step
        save(tmp_path, {**engine.state(), **EXTRA}, keep=1, best=best)
        assert [load(path)["step"] for path in checkpoints(tmp_path)] == kept


def test_a_training_from_an_older_checkpoint_replaces_those_of_later_steps(tmp_path: Path) -> None:
    engine = made()
    for step in (500, 600):
        engine.step = step
        save(tmp_path, {**engine.state(), **EXTRA}, keep=2)
    for step, names in ((100, ["step-00000100.pt"]), (200, ["step-00000100.pt", "step-00000200.pt"])):
        engine.step = step
        save(tmp_path, {**engine.state(), **EXTRA}, keep=2)
        assert [path.name for path in checkpoints(tmp_path)] == names
    state, _ = latest(tmp_path)
    assert state is not None and state["step"] == 200


class Killed(BaseException):
    """Ends a training as a kill does: nothing is saved after it."""


def test_a_training_killed_in_an_evaluation_continues_with_it(tmp_path: Path) -> None:
    plan = Plan(total_steps=6, steps_per_epoch=3, evaluate_every=3, save_every_s=1e9, global_batch=8, best="top1")

    def trained(folder: Path, killed_at: int | None = None) -> tuple[Engine, list[Any]]:
        engine, progress = made(**OPTIONS), Progress()
        state, _ = latest(folder)
        if state is not None:
            progress = from_state(engine, state)

        def batches(start: int, stop: int) -> Iterator[Any]:
            return training_batches(Pictures(), augmented, batch_size=8, seed=3, start=start, stop=stop, ranks=Ranks())

        def evaluate(model: nn.Module) -> dict[str, float]:
            if engine.step == killed_at:
                raise Killed
            return {"top1": float(engine.step)}

        def keep(engine: Engine, progress: Progress) -> None:
            about = {key: EXTRA[key] for key in ("recipe", "config", "versions", "data")}
            save(folder, as_state(engine, progress, about), keep=2)

        listener = Listener(lambda *_: None, lambda *_: None, keep)
        train(engine, batches, evaluate, plan, progress, listener, catch_signals=False)
        return engine, [(row["step"], row["train_loss"], row["eval_top1"]) for row in progress.rows]

    with pytest.raises(Killed):
        trained(tmp_path / "killed", killed_at=3)
    state, _ = latest(tmp_path / "killed")
    assert state is not None and state["step"] == 3 and state["rows"] == []
    whole, rows = trained(tmp_path / "whole")
    resumed, resumed_rows = trained(tmp_path / "killed")
    assert resumed_rows == rows and [row[0] for row in rows] == [3, 6]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_an_infinite_loss_is_recorded_as_missing() -> None:
    def scored(weight: float) -> dict[str, float]:
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
        nn.init.constant_(next(model.parameters()), weight)
        batches = evaluation_batches(Pictures(), plain, batch_size=10, ranks=Ranks())
        return TASKS["classification"].evaluate(model, batches, 5, Ranks(), InferenceOptions(), None).scores

    assert math.isclose(scored(0.0)["loss"], math.log(5), abs_tol=0.1)
    assert all(math.isnan(scored(weight)["loss"]) for weight in (float("nan"), float("inf")))


def test_more_classes_than_a_confusion_matrix_supports_are_scored() -> None:
    chance = np.random.default_rng(0)
    truths, guesses = chance.integers(0, 5000, (2, 400))
    guesses[:150] = truths[:150]

    class Guess(nn.Module):
        """Its images are the guessed classes."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x_B: Tensor) -> Tensor:
            return F.one_hot(x_B, 5000) * self.weight

    batches = [
        Batch(torch.from_numpy(guesses[part]), torch.from_numpy(truths[part]), torch.arange(200))
        for part in (slice(0, 200), slice(200, 400))
    ]
    found = TASKS["classification"].evaluate(Guess(), batches, 5000, Ranks(), InferenceOptions(), None)
    pairs = list(zip(truths.tolist(), guesses.tolist(), strict=True))
    assert found.scores["top1"] == 100 * sum(truth == guess for truth, guess in pairs) / 400
    assert found.matrix is None and found.matrix_rows(["x"] * 5000) == [] and found.n_seen == 400
    for label, recall in enumerate(found.per_class["recall"]):
        hits = [guess == label for truth, guess in pairs if truth == label]
        assert recall == pytest.approx(100 * sum(hits) / len(hits)) if hits else math.isnan(recall)


# -- several processes -----------------------------------------------------------------------------------------------


def prepare(rank: int, size: int, port: int) -> None:
    """Set what ``torchrun`` sets."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def train_and_score(rank: int, size: int, port: int, out: str) -> None:
    """The work of one of several processes; the first one writes the result."""
    prepare(rank, size, port)
    with joined(torch.device("cpu")) as ranks:
        torch.manual_seed(0)
        model = build(SMALL)
        engine = Engine(
            model, TASKS["classification"].make_loss(0.1, 0.0), torch.optim.SGD(model.parameters(), lr=0.05),
            lambda _: 0.05, EngineOptions(sync_batch_norm=True), seed=0, ranks=ranks,
        )  # fmt: skip
        stream = training_batches(Pictures(), plain, batch_size=7, seed=3, start=0, stop=20, ranks=ranks)
        for batch in stream:
            engine.train_step(batch.images, batch.targets, 7)
        done = TASKS["classification"].evaluate(
            model.eval(), evaluation_batches(Pictures(), plain, batch_size=10, ranks=ranks), 5, ranks,
            InferenceOptions(), None,
        )  # fmt: skip
        gathered = ranks.gathered(list(rank_indices(101, ranks.rank, ranks.size)))
        assert sorted(gathered) == list(range(101))
        if ranks.first:
            torch.save(
                {"model": model.state_dict(), "matrix": done.matrix, "n": done.n_seen, "scores": done.scores}, out
            )


def small_data(batch_size: int, global_batch_size: int) -> AnyRecipe:
    settings = {
        "data.batch_size_per_process": batch_size, "data.global_batch_size": global_batch_size,
        "optimiser.name": "sgd", "optimiser.betas": None, "optimiser.epsilon": None,
        "precision.sync_batch_norm": True, "schedule.warmup_epochs": 0,
    }  # fmt: skip
    return load_recipe("fashion_mnist", settings=list(settings.items()))


def train_on_three_images(rank: int, size: int, port: int, out: str) -> None:
    """Three steps of three images with a recipe for 8; two processes have 2 and 1 of them."""
    prepare(rank, size, port)
    recipe = small_data(2 if size > 1 else 4, 8)
    with joined(torch.device("cpu")) as ranks:
        torch.manual_seed(0)
        plan = make_plan(recipe, 3)
        engine = make_engine(recipe, build(SMALL), plan, ranks)
        for batch in training_batches(Pictures(3), plain, batch_size=3, seed=3, start=0, stop=3, ranks=ranks):
            engine.train_step(batch.images, batch.targets, plan.global_batch)
        if ranks.first:
            torch.save(engine.model.state_dict(), out)


def run_processes(size: int, folder: Path, work: Callable[..., None] = train_and_score, *more: str) -> dict[str, Any]:
    """The processes are forked by a server that has loaded torch once. Each calls ``work(rank, size, port, out,
    *more)``."""
    context = forked.server()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = folder / "out.pt"
    processes = [context.Process(target=work, args=(rank, size, port, str(out), *more)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(250)
    assert [process.exitcode for process in processes] == [0] * size
    return torch.load(out, weights_only=True)


def test_two_processes_train_like_one_on_fewer_images_than_a_batch(tmp_path: Path) -> None:
    """They make equal numbers of passes: in each one, BatchNorm sums over both processes."""
    one, two = (run_processes(size, tmp_path, train_on_three_images) for size in (1, 2))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_a_step_has_the_fewest_passes_that_all_processes_can_share(batch_size: int) -> None:
    for size in (1, 2, 3):
        recipe = small_data(batch_size, 4 * batch_size * size)
        for images in range(size, 5 * batch_size * size):
            plan = make_plan(recipe, images)
            shares = [len(range(rank, plan.global_batch, size)) for rank in range(size)]
            enough = [n for n in range(1, 5) if all(share <= n * batch_size for share in shares)]
            if min(shares) < enough[0]:
                with pytest.raises(ConfigError, match=f"{images} training images over {size} processes"):
                    number_of_passes(recipe, plan, Ranks(0, size))
            else:
                assert number_of_passes(recipe, plan, Ranks(0, size)) == enough[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_processes(1, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several_processes_train_and_score_like_one(size: int, alone: dict[str, Any], tmp_path: Path) -> None:
    """The same global batches of 7 images, so that parts are of unlike sizes, and BatchNorm over all of them.

    Scored on 101 images: equal weights would give equal integers, and nearly equal ones do here.
    """
    together = run_processes(size, tmp_path)
    for name, tensor in alone["model"].items():
        torch.testing.assert_close(together["model"][name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    assert together["n"] == alone["n"] == 101
    assert torch.equal(together["matrix"], alone["matrix"])
    assert together["scores"]["top1"] == alone["scores"]["top1"]
