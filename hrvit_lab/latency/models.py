"""Build models for measurements, from a name or a config.

Their weights depend on the seed only, and BatchNorms and layer scales are randomized. A BatchNorm or layer scale that
starts at (nearly) zero would hide errors of the layers before it from the numerics gate. The latency lab and the
studies both build their networks here, so that a network has the same latency in both.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab.cli import printable
from hrvit_lab.config import ConfigError, own_name
from hrvit_lab.network.baselines import TIMM, NetworkConfig, build_network
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.named import named_config
from hrvit_lab.network.seeding import seeded

DEPLOY = ":deploy"

NEARLY_ZERO = 0.01
"""Weights whose largest element is below this are randomized (layer scales start at 1e-6 to 1e-4)."""


@dataclass(frozen=True)
class NamedModel:
    """A model and its name.

    Attributes:
        name: as the user gave it, without control characters.
        plain: the network as it is defined; its float32 output is the reference of the numerics gate.
        module: the module that is timed: ``plain`` itself, or its deployed form.
    """

    name: str
    plain: nn.Module
    module: nn.Module


def find_model(name: str, *, seed: int = 0, resolution: tuple[int, int] | None = None) -> NamedModel:
    """Build the model called ``name``, as ``build_measurable`` does.

    Args:
        name: a preset (``hrvit_b1``, ``hrvit_b1_segformer_ade20k``), the YAML file of a config, or a timm model
            (``timm:resnet50``). The suffix ``:deploy`` after a preset or a file selects the form for inference, with
            folded BatchNorms (``hrvit_b1:deploy``).
        seed: of the weights.
        resolution: as in ``build_measurable``.
    Raises:
        ConfigError: if there is no such model, or timm cannot build it for this resolution.
    """
    source = own_name(name.removesuffix(DEPLOY))
    deployed = name.endswith(DEPLOY)
    if deployed and source.startswith(TIMM):
        raise ConfigError(f"{name}: only HRViTs have a deployed form; use {source}")
    config = named_config(source)
    if source.startswith(TIMM):
        try:
            plain = build_measurable(config, seed, resolution)
        except Exception as error:  # timm's models raise different exceptions for sizes they do not support
            size = "its default size" if resolution is None else f"{resolution[0]}×{resolution[1]}"
            raise ConfigError(f"{name} cannot be built for {size}: {type(error).__name__}: {error}") from error
    else:
        plain = build_measurable(config, seed)
    return NamedModel(printable(name), plain, deploy(plain) if deployed else plain)


def as_model(
    model: nn.Module | NetworkConfig | str, *, seed: int = 0, resolution: tuple[int, int] | None = None
) -> nn.Module:
    """Return a module unchanged; build the model of a config or of a name (``find_model``).

    Args:
        resolution: as in ``build_measurable``.
    Raises:
        ConfigError: if it is none of these, or there is no model of that name.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, NetworkConfig):
        return build_measurable(model, seed, resolution)
    if isinstance(model, str):
        return find_model(model, seed=seed, resolution=resolution).module
    raise ConfigError(f"{model!r:.80} is not a model; give a module, a config, or a name such as 'hrvit_nano'")


def build_measurable(config: NetworkConfig, seed: int = 0, resolution: tuple[int, int] | None = None) -> nn.Module:
    """Build the network of a config for measurements: weights depend on ``seed`` only, and BatchNorms and layer scales
    are randomized (`randomize_norms`).

    Args:
        resolution: (height, width) in pixels, for timm models with a fixed input size; None takes timm's default.
    """
    with seeded(seed):
        model = build_network(config, resolution)
        randomize_norms(model)
    return model


@torch.no_grad()
def randomize_norms(model: nn.Module) -> None:
    """Randomize, in place, the statistics, scale and shift of every BatchNorm, and all other weights that start at
    (nearly) zero.

    Scales of BatchNorms and vectors such as layer scales are drawn uniformly from 0.5 to 1.5. Matrices (such as some
    classifiers) are drawn with a standard deviation of 0.02. Biases are not changed.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") or parameter.numel() == 0 or parameter.abs().max() >= NEARLY_ZERO:
                continue
            if max(parameter.shape, default=1) == parameter.numel():  # a vector of any shape: a layer scale
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.02)
