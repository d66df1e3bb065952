"""Score networks: build them, apply predictors. Scores depend only on network, seed and batch."""

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.latency.timing import intra_op_threads
from hrvit_lab.network.baselines import NetworkConfig, build_network
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.seeding import seeded
from hrvit_lab.parts import HEAD
from hrvit_lab.search.predictors import PREDICTORS, Batch
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.train.data import load_dataset


def load_batch(choice: BatchChoice) -> tuple[Batch, int]:
    """The first images of a data set with equally many of each class, and its number of classes.

    Raises:
        ConfigError: for missing files, or fewer images than classes.
    """
    where = choice.data
    try:
        data = load_dataset(where.name, resolution=where.resolution, root=where.root, train_limit=choice.batch_size)
    except ConfigError as error:
        raise ConfigError(str(error).replace("train_limit", "predictors: batch_size =")) from None
    return Batch(data.inputs(data.train_images), data.train_labels), data.num_classes


def score_config(
    config: NetworkConfig, keys: Iterable[str], batch: Batch, num_classes: int, seed: int
) -> dict[str, float]:
    """Scores of a network with the data's number of classes, and random weights from the seed; see `scores`."""
    height, width = batch.images.shape[2:]
    found = {}
    for key in keys:
        with seeded(seed):  # to build a network is as quick as to copy it, and searches have one predictor
            model = build_network(config.replace(num_classes=num_classes), (height, width))
        found[key] = _score(model, key, batch, seed)
    return found


def scores(model: nn.Module, keys: Iterable[str], batch: Batch, seed: int = 0) -> dict[str, float]:
    """Scores by predictor, on the CPU in one thread. Neither the model nor random numbers outside are changed.

    Every predictor gets a copy.

    Args:
        keys: of `PREDICTORS`.
        seed: of random inputs, and of dropout.
    Raises:
        ConfigError: if a predictor does not support the network.
    """
    return {key: _score(copy.deepcopy(model), key, batch, seed) for key in keys}


def _score(model: nn.Module, key: str, batch: Batch, seed: int) -> float:
    """The score of a network in training mode, which the predictor may change.

    Weights of norms that are all zero are set to one: they are zero at initialisation so that a block starts as an
    identity, and the gradient would not reach the block's attention.
    """
    model.train()
    _open_norms(model)
    _check(key, model)
    with seeded(seed), intra_op_threads(1), torch.enable_grad():
        return PREDICTORS[key].function(model, batch)


def _open_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm) and module.weight is not None:
            weight = module.weight.data
            if not weight.any():
                weight.fill_(1)


def fitting(key: str, config: NetworkConfig) -> bool:
    """Whether a predictor supports a network."""
    match PREDICTORS[key].reads:
        case "blocks":
            return isinstance(config, HRViTConfig)
        case "labels":
            return not isinstance(config, HRViTConfig) or _classifies(config)
    return True


def _check(key: str, model: nn.Module) -> None:
    reads = PREDICTORS[key].reads
    if reads == "blocks" and not isinstance(model, HRViT):
        raise ConfigError(f"predictor {key!r} supports HRViTs only, not {type(model).__name__}; {_others('blocks')}")
    if isinstance(model, HRViT):
        check_head(key, model.config)


def check_head(key: str, config: HRViTConfig) -> None:
    """Check that a predictor supports the head of a network.

    Raises:
        ConfigError: if it reads labels, and the network does not classify whole images.
    """
    if PREDICTORS[key].reads == "labels" and not _classifies(config):
        raise ConfigError(
            f"predictor {key!r} needs a network that classifies whole images, but its head is {config.head!r}; "
            f"{_others('labels')}"
        )


def _classifies(config: HRViTConfig) -> bool:
    head = HEAD[config.head]
    return head.present and head.whole_image


def _others(reads: str) -> str:
    names: Sequence[str] = [key for key, predictor in PREDICTORS.items() if predictor.reads != reads]
    return f"use one of {', '.join(names)}"
