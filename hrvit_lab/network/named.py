"""Networks by name, with their weights: presets, YAML files, timm's models, shipped networks, and trained ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from hrvit_lab.cli import MAX_SIDE, printable
from hrvit_lab.config import (
    ConfigError,
    HRViTConfig,
    own_name,
    preset_names,
    read_config,
    read_text,
    read_yaml,
    shipped,
)
from hrvit_lab.config.text import shortened
from hrvit_lab.errors import suggest
from hrvit_lab.files import user_path
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig, build_network, network_from_dict
from hrvit_lab.network.build import create_model
from hrvit_lab.network.checkpoints import load_checkpoint
from hrvit_lab.network.seeding import seeded
from hrvit_lab.network.weight_files import RESULT, WEIGHTS

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_CLASS_NAME = 60
MAX_SCALE = 1000
"""Means and standard deviations of other sizes are those of no images in 0…1."""


@dataclass(frozen=True, eq=False)
class NamedNetwork:
    """A network in evaluation mode on the CPU, with the format of its input images.

    Attributes:
        name: for figures and messages, without control characters.
        weights: where its weights are from, in words.
        trained: whether they were trained.
        mean, std: of each channel, of pixels in 0…1.
        resolution_px: height and width of its images; None if unknown.
        class_names: in the order of its outputs; empty if they are not known.
        config: of the network.
    """

    name: str
    model: nn.Module
    weights: str
    trained: bool
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    resolution_px: tuple[int, int] | None = None
    class_names: tuple[str, ...] = field(default=())
    config: NetworkConfig | None = None


def named_config(name: str) -> NetworkConfig:
    """The config of a preset, a published segmenter, a shipped network, a YAML file, or a timm model (``timm:NAME``).

    Raises:
        ConfigError: if there is none; suggests similar names.
    """
    name = own_name(name)
    if name.startswith(TIMM):
        return TimmConfig(name)
    if name not in preset_names() and not name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"model {shortened(name)} is unknown; {suggest(name, preset_names())} or give the YAML file of a config or "
            f"{TIMM}NAME"
        )
    return read_config(name)


def trained_files(path: Path) -> tuple[Path, Path]:
    """The config and the weights of a training's folder, or of a file of weights in it.

    Raises:
        ConfigError: if one of them is missing.
    """
    weights = _weights_in(path)
    folder = weights.parent
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{weights} has no config.yaml beside it, so its network is unknown; write one, such as 'preset: "
            "hrvit_b1', or give a folder written by hrvit-lab train"
        )
    return folder / "config.yaml", weights


def _weights_in(path: Path) -> Path:
    """The file of weights in a training's folder, or the file itself.

    Raises:
        ConfigError: if there is none.
    """
    if not path.is_dir():
        return path
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise ConfigError(f"{path} contains no {', '.join(WEIGHTS)}; give a folder written by hrvit-lab train")
    return weights


def open_network(name: str, *, seed: int = 0, resolution: tuple[int, int] | None = None) -> NamedNetwork:
    """The network called ``name``, with its trained weights if it has any, and random ones otherwise.

    Args:
        name: as for `named_config`; or the folder of a training, or a file of weights with a ``config.yaml`` beside it.
            The training of a timm model has none: its recipe and its results are read.
        seed: of random weights; a training with this seed starts from the same weights.
        resolution: (height, width) for timm models with a fixed input size.
    Raises:
        ConfigError: if there is no such network, or its files don't fit each other.
    """
    name = own_name(name)
    path = user_path(name)
    if name in shipped():
        about = shipped()[name]
        return NamedNetwork(
            name, create_model(name, pretrained=True).eval(), f"weights {name}", True,
            about.mean, about.std, about.resolution_px, about.classes, read_config(name),
        )  # fmt: skip
    if path.exists() and not name.endswith((".yaml", ".yml")):
        return _trained(path)
    config = named_config(name)
    with seeded(seed):
        model = _built(config, resolution, name)
    shown = Path(name).name if name.endswith((".yaml", ".yml")) else name
    found = NamedNetwork(printable(shown), model.eval(), f"random weights, seed {seed}", trained=False, config=config)
    return found if isinstance(config, HRViTConfig) else _with_timm_preprocessing(found)


def _built(config: NetworkConfig, resolution: tuple[int, int] | None, name: str) -> nn.Module:
    """The network of a config, with random weights.

    Raises:
        ConfigError: if it cannot be built.
    """
    try:
        return build_network(config, resolution)
    except ConfigError:
        raise
    except Exception as error:  # timm's models raise different exceptions for sizes they do not support
        raise ConfigError(f"{shortened(name)} cannot be built: {type(error).__name__}: {error}") from error


def _with_timm_preprocessing(found: NamedNetwork) -> NamedNetwork:
    """The network with mean, standard deviation and input size from its timm configuration."""
    about: Mapping[str, Any] = getattr(found.model, "pretrained_cfg", None) or {}
    size = about.get("input_size") or (3, 224, 224)
    return replace(
        found, mean=tuple(about.get("mean") or IMAGENET[0]), std=tuple(about.get("std") or IMAGENET[1]),
        resolution_px=(int(size[1]), int(size[2])),
    )  # fmt: skip


def _trained(path: Path) -> NamedNetwork:
    """The network of a training's folder, or of a file of weights in it."""
    weights = _weights_in(path)
    folder = weights.parent
    about = _preprocessing(folder)
    config = _timm_config(folder) or read_config(trained_files(path)[0])
    model = _built(config, about.get("resolution_px"), str(path))
    load_checkpoint(model, weights)
    shown = printable(path.resolve().name if path.is_dir() else path.name)
    label = printable(f"weights {weights.name} of {folder.resolve().name}")
    return replace(NamedNetwork(shown, model.eval(), label, trained=True, config=config), **about)


def _timm_config(folder: Path) -> NetworkConfig | None:
    """The timm model of a training; None if it has a ``config.yaml``, or is not the training of a timm model.

    Raises:
        ConfigError: if the files of the training do not tell the number of classes.
    """
    path = folder / "recipe.yaml"
    if (folder / "config.yaml").is_file() or not path.is_file():
        return None
    about = _mapping(_mapping(read_yaml(read_text(path, "the recipe"), str(path))).get("model"))
    name = about.get("name")
    if not isinstance(name, str) or not name.startswith(TIMM):
        return None
    classes = _mapping(_result(folder).get("config")).get("num_classes") if (folder / RESULT).is_file() else None
    if classes is None:
        raise ConfigError(
            f"{folder} has no {RESULT} with the number of classes of {shortened(name)}; give the folder of a training "
            "that has been evaluated"
        )
    fields = {"model": name, "head": about.get("head"), "num_classes": classes}
    return network_from_dict({**_mapping(about.get("changes")), **fields})


def _result(folder: Path) -> Mapping[str, Any]:
    """The results of a training."""
    path = folder / RESULT
    try:
        return _mapping(json.loads(read_text(path, "the result")))
    except ValueError:
        raise ConfigError(f"{path} is not valid JSON; remove it, or give another folder") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, and an empty one otherwise."""
    return value if isinstance(value, Mapping) else {}


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Fields of `NamedNetwork` about the images, from a training's recipe or its results; unknown ones are omitted."""
    if (folder / "recipe.yaml").is_file():
        path = folder / "recipe.yaml"
        fields = _mapping(_mapping(read_yaml(read_text(path, "the recipe"), str(path))).get("data"))
    elif (folder / RESULT).is_file():
        fields = _mapping(_result(folder).get("data"))
    else:
        return {}
    found: dict[str, Any] = {}
    for name in ("mean", "std"):
        value = fields.get(name)
        if isinstance(value, list) and len(value) == 3 and all(_is_scale(one, name == "std") for one in value):
            found[name] = tuple(map(float, value))
    size = fields.get("resolution_px", fields.get("resolution"))
    size = [size, size] if isinstance(size, int) else size
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side <= MAX_SIDE for side in size):
        found["resolution_px"] = tuple(size)
    classes = fields.get("class_names")
    if isinstance(classes, list):
        found["class_names"] = tuple(printable(one)[:MAX_CLASS_NAME] for one in classes)
    return found


def _is_scale(value: Any, positive: bool) -> bool:
    """Whether a value is a mean or, if positive, a standard deviation of pixels in 0…1."""
    return type(value) in (int, float) and abs(value) <= MAX_SCALE and (value >= 1 / MAX_SCALE or not positive)
