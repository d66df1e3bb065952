"""From a name or a config to a model that is fit to be measured.

Fit means: weights that depend on a seed alone, and none that hides what stands before it. A BatchNorm or a layer scale
that starts at (nearly) zero does: a back end that computed nonsense there would still agree with the reference. The lab
and the studies build their networks here, so that one network has one latency.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab.cli import printable
from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig, read_config, suggest
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig, build_network
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.seeding import seeded

DEPLOY = ":deploy"

NEARLY_ZERO = 0.01
"""A weight whose largest element is below this hides what stands before it (layer scales start at 1e-6 to 1e-4)."""


@dataclass(frozen=True)
class NamedModel:
    """A model under the name that its measurements carry.

    Attributes:
        name: as the user gave it, without control characters.
        plain: the network as it is defined; its output in float32 is the truth for all forms of it.
        module: what is timed: ``plain`` itself, or a faster form with the same weights.
    """

    name: str
    plain: nn.Module
    module: nn.Module


def find_model(name: str, *, seed: int = 0, resolution: tuple[int, int] | None = None) -> NamedModel:
    """Build the model called ``name``, as ``build_measurable`` does.

    Args:
        name: a preset (``hrvit_b1``, ``hrvit_b1_segformer_ade20k``), a config's YAML file, or a model of timm
            (``timm:resnet50``). ``:deploy`` after a preset or a file takes the form for inference, with folded
            BatchNorms (``hrvit_b1:deploy``).
        seed: of the weights.
        resolution: as in ``build_measurable``.
    Raises:
        ConfigError: if there is no such model, or timm cannot build it for this resolution.
    """
    source = name.removesuffix(DEPLOY)
    deployed = source != name
    if deployed and source.startswith(TIMM):
        raise ConfigError(f"{name}: deploy knows HRViTs only; give {source}")
    if source.startswith(TIMM):
        config: NetworkConfig = TimmConfig(source)
        try:
            plain = build_measurable(config, seed, resolution)
        except Exception as error:  # each model of timm checks its sizes in its own way
            size = "its own size" if resolution is None else f"{resolution[0]}×{resolution[1]}"
            raise ConfigError(f"{name} cannot be built for {size}: {type(error).__name__}: {error}") from error
    else:
        plain = build_measurable(_config(source), seed)
    return NamedModel(printable(name), plain, deploy(plain) if deployed else plain)


def as_model(
    model: nn.Module | NetworkConfig | str, *, seed: int = 0, resolution: tuple[int, int] | None = None
) -> nn.Module:
    """The module itself; or what a config or a name (as ``find_model`` takes it) stands for.

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
    raise ConfigError(f"{model!r:.80} is no model; give a module, a config, or a name such as 'hrvit_nano'")


def build_measurable(config: NetworkConfig, seed: int = 0, resolution: tuple[int, int] | None = None) -> nn.Module:
    """The network of a config, ready to be measured: weights that depend on ``seed`` alone, BatchNorms and layer scales
    randomized (`randomize_norms`).

    Args:
        resolution: (height, width) in pixels that a model of timm with a fixed input size is built for; None takes
            timm's own.
    """
    with seeded(seed):
        model = build_network(config, resolution)
        randomize_norms(model)
    return model


@torch.no_grad()
def randomize_norms(model: nn.Module) -> None:
    """Give every BatchNorm random statistics, scale and shift, and every other weight that starts at (nearly) zero
    random values, in place.

    Scales (of BatchNorms, and vectors such as layer scales) are drawn from 0.5 to 1.5, so that none is near zero;
    whole matrices that start at zero (some classifiers) get a standard deviation of 0.02. Biases stay as they are.
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
            if max(parameter.shape, default=1) == parameter.numel():  # a vector, whatever its shape: a layer scale
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.02)


def _config(source: str) -> HRViTConfig:
    if source not in (*PRESETS, *SEGMENTERS) and not source.endswith((".yaml", ".yml")):
        known = [*PRESETS, *SEGMENTERS]
        raise ConfigError(
            f"model {source!r} is unknown; {suggest(source, known)} or give a config's YAML file or {TIMM}NAME"
        )
    return read_config(source)
