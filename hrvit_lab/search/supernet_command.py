"""The work of ``hrvit-lab search supernet``: train a supernet over a space, and score a study's networks with it."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.environment import versions
from hrvit_lab.latency.timing import intra_op_threads
from hrvit_lab.search.files import find_search
from hrvit_lab.search.genome import Space
from hrvit_lab.search.hold import Hold, held
from hrvit_lab.search.pace import Watch
from hrvit_lab.search.spec import load_search
from hrvit_lab.search.supernet import training as supernets
from hrvit_lab.search.supernet.family import Family, family_of
from hrvit_lab.search.supernet.model import RANDOM
from hrvit_lab.search.supernet.scores import FOLDER, TABLE, Row, read_rows, write_rows
from hrvit_lab.study.executors.host import in_turn
from hrvit_lab.study.files import find_study, load_study, study_name
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.train import state as states
from hrvit_lab.train import training as loop
from hrvit_lab.train.data import ImageData, load_dataset
from hrvit_lab.train.engine import Engine
from hrvit_lab.train.loop import TrainingDiverged
from hrvit_lab.train.run_folder import RunFolder


def train_supernet(options: argparse.Namespace) -> int:
    """Train what is missing, score networks without a score, and print where the table is. Returns the exit code.

    Raises:
        ConfigError: for an invalid search or study, networks that can't share weights, missing images, or a folder
            with another training.
    """
    path = find_study(options.study)
    spec = load_study(path)
    networks = networks_of(spec)
    space = Space(load_search(find_search(options.search)))
    data = load_dataset(
        spec.dataset, resolution=spec.train_resolution, root=spec.data_root, train_limit=spec.train.train_limit
    )
    family = family_of(space, networks.values(), data.num_classes, spec.train_resolution, options.seed)
    folder = RunFolder(options.out / study_name(path) / FOLDER)
    with ExitStack() as ours:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            hold = ours.enter_context(held(folder.path))
        except OSError as error:
            raise ConfigError(
                f"--out {options.out} can't be written: {error.strerror}; choose another folder"
            ) from None
        ours.enter_context(in_turn(exclusive=False, say=cli.console().print))
        ours.enter_context(intra_op_threads(spec.train.threads))
        return _run(spec, networks, family, data, folder, hold, options)


def networks_of(spec: Spec) -> dict[str, HRViTConfig]:
    """The networks of a study by name.

    Raises:
        ConfigError: if they are no HRViTs, or trained by a recipe.
    """
    if spec.recipe is not None:
        raise ConfigError("recipe: a supernet needs the short training (data and train); use a study with these")
    networks = {}
    for variant in expand(spec).variants:
        if not isinstance(variant.config, HRViTConfig):
            raise ConfigError(f"{variant.name!r} is no HRViT, so it can't share weights; remove it from the study")
        networks[variant.name] = variant.config
    return networks


def _run(
    spec: Spec,
    networks: Mapping[str, HRViTConfig],
    family: Family,
    data: ImageData,
    folder: RunFolder,
    hold: Hold,
    options: argparse.Namespace,
) -> int:
    console = cli.console()
    training = supernets.begin(family, data, spec.train.model_copy(update={"epochs": options.epochs}), options.seed)
    about, progress = about_training(training), loop.Progress()
    state, broken = states.latest(folder.checkpoints)
    for sentence in broken:
        cli.complain(f"warning: {sentence}")
    if state is not None:
        check_same(about, state, folder.path)
        progress = loop.from_state(training.engine, state)
    done, total = training.engine.step, training.plan.total_steps
    params = sum(parameter.numel() for parameter in training.engine.model.parameters())
    console.print(
        f"A supernet of {params:,} parameters is trained for {total:,} steps of {2 + RANDOM} networks, "
        f"{done:,} of which are done; then {len(networks)} networks of the study inherit its weights.",
        soft_wrap=True,
    )
    if done < total:
        (folder.path / TABLE).unlink(missing_ok=True)  # of weights that are not the last ones
    with Watch(console) as watch:
        try:
            _train(training, progress, about, folder, hold, watch)
        except loop.Interrupted as ended:
            cli.complain(
                f"interrupted after step {training.engine.step:,} of {total:,}; run the same command to resume"
            )
            return 128 + ended.number
        except TrainingDiverged as error:
            cli.complain(f"error: {error}")
            return 1
        rows = _score(training, networks, spec.train_resolution, folder.path, hold, watch)
    accuracies = [row.top1 for row in rows]
    console.print(
        f"With inherited weights, top-1 of {len(rows)} networks is {min(accuracies):.2f} % to {max(accuracies):.2f} %.",
        soft_wrap=True,
    )
    console.print(f"{'supernet':<12} {folder.path}: {TABLE}, summary.csv, state", soft_wrap=True)
    console.print(f"Compare them with separate trainings: hrvit-lab search quality {options.study}", soft_wrap=True)
    return 0


def _train(
    training: supernets.Training,
    progress: loop.Progress,
    about: Mapping[str, Any],
    folder: RunFolder,
    hold: Hold,
    watch: Watch,
) -> None:
    say = watch.of("steps", "done", training.plan.total_steps)
    say(training.engine.step)

    def save(engine: Engine, reached: loop.Progress) -> None:
        hold.check()
        folder.save(loop.as_state(engine, reached, about), keep=1)

    supernets.proceed(
        training,
        progress,
        loop.Listener(
            step=lambda step, loss, rate, seconds: say(step),
            row=lambda row, better: folder.write_rows(progress.rows),
            save=save,
        ),
    )


def _score(
    training: supernets.Training,
    networks: Mapping[str, HRViTConfig],
    resolution: tuple[int, int],
    folder: Path,
    hold: Hold,
    watch: Watch,
) -> list[Row]:
    """Rows of all networks, written after each."""
    known, rows = read_rows(folder), []
    say = watch.of("networks", "scored", len(networks))
    for number, (name, config) in enumerate(networks.items()):
        say(number)
        if config.id in known:
            rows.append(known[config.id]._replace(variant=name))
        else:
            scores, counts = supernets.score(training, config), count(config, resolution)
            rows.append(Row(name, config.id, counts.params, counts.macs, scores["top1"], scores["loss"]))
            hold.check()
            write_rows(folder, rows)
    say(len(networks))
    write_rows(folder, rows)
    return rows


def about_training(training: supernets.Training) -> dict[str, Any]:
    """What a checkpoint says about its training. Trainings with equal settings have equal states."""
    family, data = training.supernet.family, training.data
    drawn = json.dumps([family.smallest.id, *(config.id for config in family.networks)])
    return {
        "recipe": {
            **training.options.model_dump(mode="json"),
            "seed": training.engine.seed,
            "space": hashlib.sha256(drawn.encode()).hexdigest()[:12],
        },
        "config": family.largest.to_dict(),
        "data": {"name": data.name, "resolution": list(data.resolution), "train_images": len(data.train_labels)},
        "versions": versions(),
    }


def check_same(about: Mapping[str, Any], state: Mapping[str, Any], folder: Path) -> None:
    """Check that a checkpoint belongs to this training.

    Raises:
        ConfigError: if not; names the first difference.
    """
    for section in ("recipe", "config", "data"):
        for key, now in about[section].items():
            before = state[section].get(key) if isinstance(state[section], Mapping) else None
            if before != now:
                raise ConfigError(
                    f"{key} = {now!r:.80}, but the supernet in {folder} has {before!r:.80}; use that, or another --out"
                )
