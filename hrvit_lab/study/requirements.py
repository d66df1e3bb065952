"""Check the device, threads and data that a study needs before any trial runs."""

from collections.abc import Iterable, Sequence
from typing import Any

from hrvit_lab.config import own_name, shipped
from hrvit_lab.devices import check_threads, find_device
from hrvit_lab.environment import hardware
from hrvit_lab.errors import ConfigError
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.recipe_choice import RecipeChoice
from hrvit_lab.study.space import Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.train.data.find import find_classes
from hrvit_lab.train.data.samples import SPLITS, open_samples

IMAGE_CHANNELS = 3
"""Channels of training images; grey images are repeated."""


def trains(spec: Spec) -> bool:
    """Whether the study trains networks."""
    return any(METRICS[key].per_seed for key in spec.metrics)


def check_requirements(spec: Spec, variants: Iterable[Variant], *, here: bool = True) -> None:
    """Check that the trials of a study can run on this machine.

    Args:
        here: whether they run on this machine; otherwise its device and cores are not checked.
    Raises:
        ConfigError: if the device or number of threads is not available, or the data is missing or does not fit the
            networks.
    """
    if spec.device != "cpu" and here:  # for a study on the CPU, only workers import torch
        find_device(spec.device)
    if _groups(spec) & {"latency", "memory"}:
        if spec.device == "mps":
            raise ConfigError("device 'mps' is supported for training only; remove latency and memory, or use cpu")
        _check_threads("latency", spec.latency.threads if here else None)
    if trains(spec):
        _check_untrained(spec)
        if spec.recipe is None:
            _check_threads("train", spec.train.threads if here else None)
        else:
            _check_threads("recipe", spec.recipe.threads if here else None)
            _check_processes(spec, here)
        classes = _find_classes(spec)
        _check_classes(spec, classes)
        for variant in variants:
            if variant.config.in_chans != IMAGE_CHANNELS:
                raise ConfigError(
                    f"variant {variant.name!r}: in_chans = {variant.config.in_chans}, but training images have "
                    f"{IMAGE_CHANNELS} channels (grey images are repeated); set in_chans to {IMAGE_CHANNELS}, or "
                    "measure only costs and latency"
                )


def _check_processes(spec: Spec, here: bool) -> None:
    """Check that the processes of a training can have a device each."""
    number = spec.processes
    if number == 1 or spec.device == "cpu":
        return
    if spec.device != "cuda":
        raise ConfigError(
            f"recipe.processes = {number} needs the device cpu, or cuda for a GPU each, but the device is "
            f"{spec.device}; change one of them"
        )
    if here and (present := _count_gpus()) < number:
        raise ConfigError(
            f"recipe.processes = {number} needs {number} GPUs, but torch sees {present}; use at most {present}"
        )


def _count_gpus() -> int:
    import torch  # imported here: a study on the CPU does not need it

    return torch.cuda.device_count()


def check_gpus(spec: Spec, gpus: int) -> None:
    """Check that each process of a training has a GPU in a job.

    Args:
        gpus: of a job.
    Raises:
        ConfigError: if there are more or fewer.
    """
    if trains(spec) and spec.device == "cuda" and 1 < spec.processes != gpus:
        raise ConfigError(
            f"recipe.processes = {spec.processes} needs a job with {spec.processes} GPUs, but the options ask for "
            f"{gpus}; use --gres gpu:{spec.processes}"
        )


def depends_on_hardware(spec: Spec) -> bool:
    """Whether values of the study depend on the hardware, not only on the kind of device."""
    return any("hardware" in GROUPS[group].depends_on for group in _groups(spec))


def check_devices(spec: Spec, devices: Sequence[str]) -> None:
    """Check that several GPUs of this machine can share a study: its latencies are of one kind of device.

    Raises:
        ConfigError: if one is not present, or they are of different kinds and the study measures latency.
    """
    if devices and trains(spec) and spec.processes > 1:
        raise ConfigError(
            f"several devices have a training each, but recipe.processes = {spec.processes}; use --device cuda, whose "
            "GPUs a training shares"
        )
    for device in devices:
        find_device(device)
    kinds = {device: hardware(device) for device in devices} if depends_on_hardware(spec) else {}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{device} is {kind}" for device, kind in kinds.items())
        raise ConfigError(f"--device: {said}, and latencies of different devices can't be compared; use equal GPUs")


def _groups(spec: Spec) -> set[str]:
    return {METRICS[key].group for key in spec.metrics}


def _check_threads(section: str, threads: int | None) -> None:
    try:
        check_threads(threads)
    except ConfigError as error:
        raise ConfigError(f"{section}.{error}") from None


def _find_classes(spec: Spec) -> int:
    data = spec.data
    if spec.recipe is not None:
        return _find_classes_of_recipe(spec.recipe)
    try:
        return find_classes(data.name, resolution=data.resolution, root=data.root, train_limit=spec.train.train_limit)
    except ConfigError as error:
        raise ConfigError(f"data: {error}") from None


def _find_classes_of_recipe(choice: RecipeChoice) -> int:
    """The number of classes of a recipe's data, after opening it; no image is read."""
    data = choice.recipe.data
    try:
        train, _ = (open_samples(data.name, split, choice.root, **data.options) for split in SPLITS)
    except ConfigError as error:
        raise ConfigError(f"recipe: {error}") from None
    if train.task != choice.recipe.task:
        raise ConfigError(
            f"recipe: data.name = {data.name!r} is for {train.task}; use a data set for {choice.recipe.task}"
        )
    if data.train_limit is not None and data.train_limit > len(train):
        raise ConfigError(
            f"recipe: data.train_limit = {data.train_limit} but there are {len(train)} training images; use null for "
            "all images"
        )
    return len(train.class_names)


def _check_untrained(spec: Spec) -> None:
    """Check that no variant is a trained network, because studies train from random weights."""
    for start in (spec.base, *(entry.set or {} for entry in spec.variants or ())):
        name = own_name(str(start.get("preset", start.get("model"))))
        if name in shipped():
            raise ConfigError(
                f"a study trains from random weights, not from those of {name}; use preset: "
                f"{shipped()[name].architecture}, or measure only costs and latency"
            )


def _check_classes(spec: Spec, classes: int) -> None:
    """Check that every given ``num_classes`` equals the data's number of classes."""
    given: list[tuple[str, Any]] = [("base", spec.base.get("num_classes"))]
    for axes in (spec.grid, spec.one_at_a_time):
        given += [("num_classes", value) for value in (axes or {}).get("num_classes", ())]
    given += [(f"variant {entry.name!r}", (entry.set or {}).get("num_classes")) for entry in spec.variants or ()]
    for where, value in given:
        if value is not None and value != classes:
            raise ConfigError(
                f"{where}: num_classes = {value}, but data set {spec.dataset} has {classes} classes; "
                f"set num_classes to {classes} or leave it out"
            )
