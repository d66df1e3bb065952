"""Run ``hrvit-lab train RECIPE``: train by a recipe and write weights, curves and scores."""

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from hrvit_lab import cli
from hrvit_lab.devices import check_threads, find_device
from hrvit_lab.environment import environment, versions
from hrvit_lab.errors import ConfigError, is_out_of_memory
from hrvit_lab.files import write_csv
from hrvit_lab.network.checkpoint_files import shown
from hrvit_lab.train import assemble, training
from hrvit_lab.train.data.download import download
from hrvit_lab.train.data.image_folders import show_skipped
from hrvit_lab.train.data.samples import SPLITS, Samples
from hrvit_lab.train.distributed import Ranks, joined
from hrvit_lab.train.engine import Engine
from hrvit_lab.train.flags import RunOptions
from hrvit_lab.train.loader import training_batches
from hrvit_lab.train.loop import TrainingDiverged
from hrvit_lab.train.memory import used_mib
from hrvit_lab.train.recipe import AnyRecipe
from hrvit_lab.train.recipe_sections import TIMM
from hrvit_lab.train.run_folder import RunFolder, open_folder
from hrvit_lab.train.tasks import Evaluation
from hrvit_lab.train.trackers import Tracker, open_trackers

FREE = ("run.workers", "run.threads", "run.save_every_s", "run.keep_last")
"""Settings that may change when a training is resumed."""
LINE_EVERY_S = 5.0
"""Seconds between lines of ``metrics.jsonl``."""
WIDE = 112
"""Columns of a terminal where a bar of 40 leaves room for all figures; with one of 8, they fit into 80."""


def run_recipe(recipe: AnyRecipe, options: RunOptions) -> int:
    """Train by a recipe; returns the exit code: 0, 1 (diverged, out of memory), 130 or 143 (ended by a signal).

    Raises:
        ConfigError: for an invalid request, a missing or broken data set, or a checkpoint of another training.
    """
    device = find_device(options.device)
    check_threads(recipe.run.threads)
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    with joined(device) as ranks:
        return _run(recipe, options, device, ranks)


def _run(recipe: AnyRecipe, options: RunOptions, device: torch.device, ranks: Ranks) -> int:
    if options.download:
        if ranks.first:
            download(recipe.data.name, options.root)
        ranks.wait()
    train_samples, val_samples = (assemble.open_split(recipe, split, options.root) for split in SPLITS)
    num_classes = len(train_samples.class_names)
    plan = assemble.make_plan(recipe, len(train_samples))
    model, loaded = assemble.make_model(recipe, num_classes)
    engine = assemble.make_engine(recipe, model.to(device), plan, ranks)
    mix = assemble.make_mixing(recipe, num_classes, plan, ranks)
    train_transform, _ = assemble.make_transforms(recipe)
    name = f"{options.recipe}-{recipe.model.name}-seed{recipe.run.seed}"
    folder, state = _folder(options, name, ranks)
    about = {
        "recipe": {key: _plain(value) for key, value in recipe.settings.items()},
        "config": {"name": recipe.model.name, "num_classes": num_classes},
        "versions": versions(),
        "data": {"name": recipe.data.name, "train_images": len(train_samples), "val_images": len(val_samples)},
    }
    progress = training.Progress()
    if state is not None:
        check_same(about, state, folder.path)
        if ranks.first and (differences := changed_versions(state["versions"], about["versions"])):
            cli.complain(
                f"warning: the checkpoint was written with {differences}; the results can differ from those of an "
                "uninterrupted training"
            )
        progress = training.from_state(engine, state)
    console = cli.console(soft_wrap=True, quiet=not ranks.first)
    names = options.track if ranks.first else ()
    trackers = open_trackers(names, folder.path, recipe.settings, engine.step, warn_of_tracker)
    watch = Watch(recipe, folder, engine, plan, progress, about, train_samples.class_names, console, trackers)
    if ranks.first:
        _begin(recipe, folder, engine.step, device, num_classes)
        _announce(recipe, folder, engine, plan, train_samples, val_samples, device, console)
        show_skipped(console, (train_samples, val_samples))
        if state is not None:
            console.print(f"Resuming after step {engine.step:,}")
        elif loaded is not None:
            console.print(f"Initial weights: {loaded}")
            if loaded.new_head:
                console.print("The head starts from random weights, because the classes or the kind of head differ.")

    def batches(start: int, stop: int) -> Any:
        return training_batches(
            train_samples, train_transform, batch_size=plan.global_batch, seed=recipe.run.seed, start=start, stop=stop,
            ranks=ranks, workers=recipe.run.workers, pin_memory=device.type == "cuda",
        )  # fmt: skip

    def evaluate(network: nn.Module) -> dict[str, float]:
        was_training = network.training
        found = assemble.score(recipe, network.eval(), val_samples, ranks)
        network.train(was_training)
        watch.last = found
        return found.scores | {"n_seen": found.n_seen}

    code, status = _follow(engine, batches, evaluate, plan, progress, watch, mix)
    if ranks.first:
        watch.finish(status)
    return code


class Watch:
    """Output of the first process during training: progress bar, log lines and files."""

    def __init__(
        self,
        recipe: AnyRecipe,
        folder: RunFolder,
        engine: Engine,
        plan: training.Plan,
        progress: training.Progress,
        about: Mapping[str, Any],
        class_names: Sequence[str],
        console: Console,
        trackers: dict[str, Tracker],
    ) -> None:
        self.trackers = trackers
        self.recipe, self.folder, self.engine, self.plan = recipe, folder, engine, plan
        self.progress, self.about, self.class_names, self.console = progress, about, class_names, console
        self.last: Evaluation | None = None
        self.line_at = time.monotonic()
        self.bar = Progress(
            BarColumn(bar_width=8 if console.width < WIDE else 40), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left {task.fields[figures]}"),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=plan.total_steps, completed=engine.step, rate="", figures="")

    @property
    def listener(self) -> training.Listener:
        """The callbacks for the training loop."""
        return training.Listener(self._step, self._row, self._save)

    def _step(self, step: int, loss: float, rate: float, seconds: float) -> None:
        images_per_s = self.plan.global_batch / seconds if seconds else 0.0
        memory = used_mib(self.engine.device)
        figures = f"loss {loss:.3f}, lr {rate:.1e}, {memory:,.0f} MiB"
        self.bar.update(self.task, completed=step, rate=f"{images_per_s:,.0f} img/s", figures=figures)
        if time.monotonic() - self.line_at > LINE_EVERY_S or step == self.plan.total_steps:
            self.line_at = time.monotonic()
            line = {"step": step, "loss": loss, "lr": rate, "images_per_s": images_per_s, "memory_mib": memory}
            self.folder.add_line(line)
            self._track(step, line)

    def _row(self, row: Mapping[str, float], better: bool) -> None:
        self.folder.write_rows(self.progress.rows)
        if better:
            self.folder.write_weights("best", self.engine.averaged or self.engine.model)
        assert self.last is not None  # called after an evaluation
        if rows := self.last.matrix_rows(self.class_names):
            write_csv(self.folder.path / "confusion_matrix.csv", rows)
        self._result("running")
        self._track(self.engine.step, row)
        shown = [name for name in row if name.startswith("eval_") and not name.endswith(("n_seen", "_plain"))]
        scores = ", ".join(
            f"{name.removeprefix('eval_')} {row[name]:.2f}{'' if name == 'eval_loss' else ' %'}" for name in shown
        )
        self.bar.console.print(
            f"epoch {row['epoch']:g}, step {row['step']:,}: train loss {row['train_loss']:.3f}, {scores}; "
            f"{cli.duration(row['seconds'])}, {row['images_per_s']:,.0f} images/s",
            soft_wrap=True,
        )

    def _save(self, engine: Engine, progress: training.Progress) -> None:
        best = progress.best(self.plan.best)
        step = None if best is None else int(best["step"])
        self.folder.save(training.as_state(engine, progress, self.about), self.recipe.run.keep_last, step)

    def _track(self, step: int, figures: Mapping[str, float]) -> None:
        """Send values to the trackers. If a tracker fails, it is removed, and the training continues without it."""
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.add(step, {key: value for key, value in figures.items() if key != "step"})
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        del self.trackers[name]
        warn_of_tracker(name, error)

    def _result(self, status: str) -> None:
        rows = self.progress.rows
        self.folder.write_result(
            {
                "status": status,
                "step": self.engine.step,
                "total_steps": self.plan.total_steps,
                "last": rows[-1] if rows else None,
                "best": self.progress.best(self.plan.best),
                "params": sum(parameter.numel() for parameter in self.engine.model.parameters()),
                **self.about,
            }
        )

    def finish(self, status: str) -> None:
        """Write the last weights and the curves, close the trackers, and print the path of the results."""
        self._result(status)
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.close()
            except Exception as error:
                self._drop(name, error)
        if rows := self.progress.rows:
            self._draw(rows)
        if status == "complete":
            self.folder.write_weights("last", self.engine.averaged or self.engine.model)
        if self.progress.rows and status == "complete":
            row, best = self.progress.rows[-1], self.plan.best
            self.console.print(f"{best} {row[f'eval_{best}']:.2f} % on {row['eval_n_seen']:,} validation images")
        self.console.print(f"Results in {self.folder.path}")

    def _draw(self, rows: Sequence[Mapping[str, float]]) -> None:
        from hrvit_lab import plots  # imported here: matplotlib takes a second

        train, val = (self.about["data"][f"{split}_images"] for split in ("train", "val"))
        title = f"Training of {self.recipe.model.name} on {self.recipe.data.name}"
        caption = (
            f"{train:,} training images, {val:,} validation images; seed {self.recipe.run.seed}; "
            f"{self.recipe.precision.dtype} on {self.engine.device}."
        )
        plots.save(plots.run_curves(pd.DataFrame(rows), self.plan.best, title, caption), self.folder.path / "curves")


def warn_of_tracker(name: str, error: Exception) -> None:
    """Print a warning that a tracker failed."""
    reason = shown(str(error) or type(error).__name__, 120)
    cli.complain(f"warning: {name} failed ({reason}); the training continues without it")


def check_same(about: Mapping[str, Any], state: Mapping[str, Any], folder: Path) -> None:
    """Check that the checkpoint belongs to this training.

    Raises:
        ConfigError: if not; names the first difference.
    """
    before, now = state["recipe"], about["recipe"]
    for key in now:
        if key not in FREE and before.get(key) != now[key]:
            raise ConfigError(
                f"{key} = {now[key]!r:.80}, but the checkpoint in {folder} was trained with {before.get(key)!r:.80}; "
                "use that, or start a new training without --resume"
            )
    for what in ("config", "data"):
        if state[what] != about[what]:
            raise ConfigError(
                f"the checkpoint in {folder} belongs to {what} {state[what]}, not to {about[what]}; use the same "
                "network and data"
            )


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The packages whose versions differ, in words; empty if none does.

    >>> changed_versions({"torch": "2.7.0", "timm": "1.0.9"}, {"torch": "2.8.0", "timm": "1.0.9", "cuda": "12.8"})
    'torch 2.7.0 (now 2.8.0), no cuda (now 12.8)'
    """
    return ", ".join(
        f"{name} {before[name]} (now {now.get(name, 'none')})" if name in before else f"no {name} (now {now[name]})"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    )


def _follow(
    engine: Engine,
    batches: Any,
    evaluate: Any,
    plan: training.Plan,
    progress: training.Progress,
    watch: Watch,
    mix: Any,
) -> tuple[int, str]:
    """Train with a progress bar; returns the exit code and the status."""
    try:
        with watch.bar:
            training.train(engine, batches, evaluate, plan, progress, watch.listener, mix)
    except training.Interrupted as ended:
        name = signal.Signals(ended.number).name
        cli.complain(
            f"{'interrupted' if ended.number == signal.SIGINT else f'ended by {name}'} after step {engine.step:,} of "
            f"{plan.total_steps:,}; the state is saved; to continue, use --out {watch.folder.path} --resume auto"
        )
        return 128 + ended.number, "interrupted"
    except TrainingDiverged as error:
        cli.complain(f"error: {error}")
        return 1, f"diverged: {error}"
    except (RuntimeError, MemoryError) as error:
        if engine.ranks.is_lost(error):
            cli.complain(
                f"error: another process of the training ended after step {engine.step:,}; start the training again "
                "with --resume auto (torchrun --max-restarts N does so by itself)"
            )
            return 1, "lost a process"
        if not is_out_of_memory(error):
            raise
        cli.complain(
            f"error: out of memory at step {engine.step + 1}; lower data.batch_size_per_process (-b), which keeps the "
            "global batch, or set precision.gradient_checkpointing"
        )
        return 1, "out of memory"
    return 0, "complete"


def _folder(options: RunOptions, name: str, ranks: Ranks) -> tuple[RunFolder, dict[str, Any] | None]:
    """The folder and the state to resume from, equal in all processes. The first process creates the folder."""
    if ranks.first:
        folder, state, broken = open_folder(options.out, name, options.resume)
        for sentence in broken:
            cli.complain(f"warning: {sentence}")
    path = ranks.broadcast(str(folder.path) if ranks.first else None)
    if not ranks.first:
        folder = RunFolder(Path(path))
        state = open_folder(folder.path, name, options.resume)[1] if options.resume else None
    return folder, state


def _begin(recipe: AnyRecipe, folder: RunFolder, step: int, device: torch.device, num_classes: int) -> None:
    config = recipe.network(num_classes).to_yaml() if not recipe.model.name.startswith(TIMM) else None
    folder.forget_after(step)
    folder.begin(recipe.to_yaml(), config, environment(str(device)))


def _announce(
    recipe: AnyRecipe,
    folder: RunFolder,
    engine: Engine,
    plan: training.Plan,
    train: Samples,
    val: Samples,
    device: torch.device,
    console: Console,
) -> None:
    """Print the network, the data, the number of steps and the folder."""
    params = sum(parameter.numel() for parameter in engine.model.parameters())
    processes = f" in {engine.ranks.size} processes" if engine.ranks.size > 1 else ""
    console.print(
        f"{recipe.model.name}, {params:,} parameters, on {recipe.data.name}: {len(train):,} images to train on, "
        f"{len(val):,} to validate, {len(train.class_names)} classes"
    )
    console.print(
        f"{plan.total_steps:,} steps of {plan.global_batch} images ({plan.steps_per_epoch:,} an epoch) on "
        f"{device}{processes}; results in {folder.path}"
    )


def _plain(value: Any) -> Any:
    """Convert tuples to lists, as in a loaded checkpoint."""
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
