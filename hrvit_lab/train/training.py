"""The training loop: steps, evaluations, checkpoints; it can be interrupted at any time and resumed."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import nn

from hrvit_lab.train.distributed import OtherProcessFailed
from hrvit_lab.train.engine import Engine
from hrvit_lab.train.loader import Batch
from hrvit_lab.train.loop import TrainingDiverged

Figures = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """The length of a training, and the times of evaluations and checkpoints.

    Attributes:
        total_steps: of the whole training.
        steps_per_epoch: of one pass over the data.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        save_every_s: seconds between checkpoints, in addition to those at evaluations.
        global_batch: images of all processes per step.
        best: the score that selects the best weights, such as ``top1``; higher is better.
    """

    total_steps: int
    steps_per_epoch: int
    evaluate_every: int
    save_every_s: float
    global_batch: int
    best: str


@dataclass
class Meter:
    """Sums since the last evaluation, and the time so far. Part of a checkpoint."""

    loss_sum: float = 0.0
    steps: int = 0
    seconds: float = 0.0

    def add(self, loss: float, seconds: float) -> None:
        self.loss_sum += loss
        self.steps += 1
        self.seconds += seconds


@dataclass
class Progress:
    """The progress of a training. Attributes: rows: one for each evaluation, in timm's column names. meter: since the
    last row.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)

    def best(self, score: str) -> dict[str, float] | None:
        """The row with the highest value of a score (the first one if equal); None before the first evaluation."""

        def value(row: dict[str, float]) -> float:
            found = row[f"eval_{score}"]
            return -math.inf if math.isnan(found) else found

        return max(self.rows, key=value, default=None)


@dataclass(frozen=True)
class Listener:
    """Callbacks of a training, on the first process only.

    Attributes:
        step: (finished steps, mean loss of the step, learning rate, seconds of the step).
        row: (row of a finished evaluation, whether it is the best so far).
        save: (state for a checkpoint).
    """

    step: Callable[[int, float, float, float], None]
    row: Callable[[Mapping[str, float], bool], None]
    save: Callable[[Engine, Progress], None]


class Interrupted(Exception):
    """A signal ended the training, after its state was saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def train(
    engine: Engine,
    batches: Callable[[int, int], Iterator[Batch]],
    evaluate: Callable[[nn.Module], Figures],
    plan: Plan,
    progress: Progress,
    listener: Listener,
    mix: Callable[[Batch, int], Batch] | None = None,
    catch_signals: bool = True,
) -> Progress:
    """Train from ``engine.step`` to the plan's end.

    Args:
        batches: (first step, last step + 1) → this process's batches.
        evaluate: model → scores by name, the same in every process. With averaged weights, it is called for both; the
            scores of the averaged weights are the row's, and the names of the others end in ``_plain``.
        progress: of an earlier part of this training; changed in place.
        mix: (batch, step) → the batch with mixed images and soft targets.
        catch_signals: whether SIGINT and SIGTERM end the training after its state is saved.
    Raises:
        Interrupted: after SIGINT or SIGTERM; the state is saved.
        TrainingDiverged: if a loss is not finite; the last checkpoint is older.
        ConfigError: if an image cannot be read, in any process; the state is saved.
    """
    saved_at = time.monotonic()
    stream = batches(engine.step, plan.total_steps)
    engine.ranks.wait()  # until all processes have read the state to resume from
    with _signals(catch_signals) as received:
        while True:
            if _is_due(engine, plan, progress):
                _save(engine, progress, listener)  # an evaluation can outlast the time that a scheduler gives to end
                with _kept(engine, progress, listener, received):
                    row = _evaluated(engine, evaluate, plan, progress.meter)
                progress.rows.append(row)
                progress.meter = Meter()
                if engine.ranks.first:
                    listener.row(row, row is progress.best(plan.best))
                _save(engine, progress, listener)
                saved_at = time.monotonic()
            if engine.step >= plan.total_steps:
                return progress
            if engine.ranks.any(bool(received), engine.device):
                _save(engine, progress, listener)
                raise Interrupted(received[0] if received else signal.SIGTERM)
            if engine.ranks.any(time.monotonic() - saved_at > plan.save_every_s, engine.device):
                _save(engine, progress, listener)
                saved_at = time.monotonic()
            start = time.perf_counter()
            with _kept(engine, progress, listener, received):
                batch = next(stream)
            if mix is not None:
                batch = mix(batch, engine.step)
            result = engine.train_step(batch.images, batch.targets, plan.global_batch)
            seconds = time.perf_counter() - start
            progress.meter.add(result.loss, seconds)
            if engine.ranks.first:
                listener.step(engine.step, result.loss, result.rate, seconds)


def _is_due(engine: Engine, plan: Plan, progress: Progress) -> bool:
    """Whether an evaluation is due and not done yet: a training can be interrupted during an evaluation."""
    step = engine.step
    if step == 0 or (progress.rows and progress.rows[-1]["step"] == step):
        return False
    return step % plan.evaluate_every == 0 or step == plan.total_steps


@contextmanager
def _kept(engine: Engine, progress: Progress, listener: Listener, received: list[int]) -> Iterator[None]:
    """Save the state if reading images fails between two steps, so that no steps are lost.

    If it fails in one of several processes, all of them end: the others would wait for its gradients forever.
    """
    failure: Exception | None = None
    try:
        yield
    except TrainingDiverged:
        raise
    except Exception as error:
        failure = error
    if not engine.ranks.any(failure is not None, engine.device):
        return
    _save(engine, progress, listener)
    if received:  # a signal to the process group also ended the workers
        raise Interrupted(received[0])
    raise failure or OtherProcessFailed


def _evaluated(engine: Engine, evaluate: Callable[[nn.Module], Figures], plan: Plan, meter: Meter) -> dict[str, float]:
    """The row of an evaluation."""
    start = time.perf_counter()
    plain = evaluate(engine.model)
    scores = {f"eval_{name}": value for name, value in plain.items()}
    if engine.averaged is not None:
        scores = {f"{name}_plain": value for name, value in scores.items()}
        scores |= {f"eval_{name}": value for name, value in evaluate(engine.averaged).items()}
    if not math.isfinite(scores.get("eval_loss", 0.0)):
        raise TrainingDiverged(f"the validation loss is not finite after step {engine.step}; lower the learning rate")
    return {
        "epoch": engine.step / plan.steps_per_epoch,
        "step": engine.step,
        "train_loss": meter.loss_sum / meter.steps,
        **scores,
        "lr": engine.rate(engine.step - 1),
        "seconds": meter.seconds + time.perf_counter() - start,
        "images_per_s": meter.steps * plan.global_batch / meter.seconds if meter.seconds else 0.0,
    }


def _save(engine: Engine, progress: Progress, listener: Listener) -> None:
    if engine.ranks.first:
        listener.save(engine, progress)
    engine.ranks.wait()


@contextmanager
def _signals(caught: bool) -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM instead of ending immediately; a second one ends immediately."""
    received: list[int] = []
    if not caught or threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_state(engine: Engine, progress: Progress, about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint."""
    return {
        **engine.state(),
        "rows": progress.rows,
        "meter": vars(progress.meter),
        **about,
    }


def from_state(engine: Engine, state: dict[str, Any]) -> Progress:
    """Load a checkpoint into the engine."""
    engine.load(state)
    return Progress(state["rows"], Meter(**state["meter"]))
