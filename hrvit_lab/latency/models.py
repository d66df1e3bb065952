"""From a name on a command line to a model that is fit to be measured.

Fit means: reproducible weights, and no part that is silent. A BatchNorm or a layer scale that starts at (nearly) zero
hides what stands before it: a backend that computed nonsense there would still agree with the reference.
"""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab.config import PRESETS, ConfigError, HRViTConfig, read_config, suggest
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig, build_network
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.seeding import seeded

DEPLOY = ":deploy"


@dataclass(frozen=True)
class NamedModel:
    """A model under the name that its measurements carry.

    Attributes:
        name: as the user gave it.
        plain: the network as it is defined; its output in float32 is the truth for all forms of it.
        module: what is timed: ``plain`` itself, or a faster form with the same weights.
    """

    name: str
    plain: nn.Module
    module: nn.Module


def find_model(name: str, *, seed: int = 0) -> NamedModel:
    """Build the model called ``name``, with random weights that depend on ``seed`` alone and no part asleep.

    Args:
        name: a preset (``hrvit_b1``), a config's YAML file, or a model of timm (``timm:resnet50``). ``:deploy`` after
            a preset or a file takes the form for inference, with folded BatchNorms (``hrvit_b1:deploy``).
    Raises:
        ConfigError: if there is no such model.
    """
    source = name.removesuffix(DEPLOY)
    deployed = source != name
    if deployed and source.startswith(TIMM):
        raise ConfigError(f"{name}: deploy knows HRViTs only; give {source}")
    with seeded(seed):
        plain = build_network(TimmConfig(source) if source.startswith(TIMM) else _config(source))
        wake(plain)
    return NamedModel(name, plain, deploy(plain) if deployed else plain)


def as_model(model: nn.Module | NetworkConfig | str, *, seed: int = 0) -> nn.Module:
    """The module itself; or what a config or a name (as ``find_model`` takes it) stands for.

    Raises:
        ConfigError: if it is none of these, or there is no model of that name.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, NetworkConfig):
        with seeded(seed):
            return build_network(model)
    if isinstance(model, str):
        return find_model(model, seed=seed).module
    raise ConfigError(f"{model!r:.80} is no model; give a module, a config, or a name such as 'hrvit_nano'")


def wake(model: nn.Module) -> None:
    """Give every BatchNorm random statistics, scales and shifts, and every layer scale (a parameter ``gamma``) random
    scales, in place: none of them zero, scales from 0.5 to 1.5."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(gamma := getattr(module, "gamma", None), nn.Parameter):
            nn.init.uniform_(gamma, 0.5, 1.5)


def _config(source: str) -> HRViTConfig:
    if source not in PRESETS and not source.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"model {source!r} is unknown; {suggest(source, PRESETS)} or give a config's YAML file or {TIMM}NAME"
        )
    return read_config(source)
