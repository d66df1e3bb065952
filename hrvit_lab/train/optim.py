"""Parameter groups, the optimizer and the learning rate of each step, built with timm."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from hrvit_lab.errors import ConfigError

HEAD_OF_OURS = "head"


def parameter_groups(
    model: nn.Module, weight_decay: float, *, layer_decay: float | None = None, head_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of parameters with weight decay and a factor of the learning rate, ``lr_scale``.

    One-dimensional parameters (norms and biases) and those in ``model.no_weight_decay()`` have no weight decay.

    Args:
        model: any module; layer decay needs timm's ``group_matcher``.
        weight_decay: of all other parameters.
        layer_decay: timm's layer-wise decay, the factor from a layer to the next lower one; None: no decay.
        head_rate: factor for the head, such as the decoder of a segmenter (10 in the published recipes).
    Raises:
        ConfigError: if the model has no ``group_matcher``, or its head is unknown.
    """
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    scales = _layer_scales(model, layer_decay) if layer_decay is not None else {}
    heads = head_names(model) if head_rate != 1.0 else ()
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim <= 1 or name in exempt else weight_decay
            in_head = any(name == head or name.startswith(f"{head}.") for head in heads)
            groups[decay, scales.get(name, 1.0) * (head_rate if in_head else 1.0)].append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules of the model's head: ``head`` for HRViTs; for timm models, from their ``pretrained_cfg``.

    Raises:
        ConfigError: if it is unknown.
    """
    if isinstance(getattr(model, HEAD_OF_OURS, None), nn.Module):
        return (HEAD_OF_OURS,)
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier")
    if not classifier:
        raise ConfigError(
            "head_rate: the head of this model is unknown (no pretrained_cfg['classifier']); set head_rate to 1"
        )
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def make_optimizer(
    name: str, groups: Sequence[Mapping[str, Any]], learning_rate: float, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer from timm's registry (``adamw``, ``sgd``, ``lamb``, …).

    Args:
        name: one of ``timm.optim.list_optimizers()``.
        groups: from ``parameter_groups``.
        learning_rate: peak rate of a group whose ``lr_scale`` is 1.
        options: further arguments, for example ``betas``.
    Raises:
        ConfigError: for an unknown name, or options that the optimizer does not support.
    """
    from timm.optim import create_optimizer_v2  # imported here because it is as slow as torch

    if name in ("adam", "adamw"):
        options = {**options, "fused": True}  # faster for networks with many small tensors
    try:
        return create_optimizer_v2(
            [dict(group, lr=learning_rate * group["lr_scale"]) for group in groups],
            opt=name, lr=learning_rate, filter_bias_and_bn=False, **options,
        )  # fmt: skip
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"optimiser {name!r}: {str(error).splitlines()[0]}; use an optimizer of timm, such as adamw"
        ) from error


def rates(
    kind: Literal["cosine", "poly", "constant"],
    *,
    peak: float,
    total: int,
    warmup: int = 0,
    warmup_start: float = 0.0,
    minimum: float = 0.0,
    power: float = 1.0,
) -> Callable[[int], float]:
    """The learning rate as a function of the number of finished steps (or epochs), 0 to ``total`` − 1.

    Values are those of timm's ``CosineLRScheduler`` and ``PolyLRScheduler`` (tested): linear from ``warmup_start`` to
    ``peak`` over ``warmup`` steps, then the curve, which is computed from step 0, and ``minimum`` from ``total`` on.

    Args:
        kind: shape of the curve.
        peak, minimum, warmup_start: learning rates.
        total, warmup: in steps, or all in epochs.
        power: of ``poly``.
    """

    def rate(done: int) -> float:
        if done < warmup:
            return warmup_start + done * (peak - warmup_start) / warmup
        if kind == "constant":
            return peak
        if done >= total:
            return minimum
        share = done / total
        curve = 0.5 * (1 + math.cos(math.pi * share)) if kind == "cosine" else (1 - share) ** power
        return minimum + (peak - minimum) * curve

    return rate


def _layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by timm's rule."""
    from timm.optim import param_groups_layer_decay

    if not hasattr(model, "group_matcher"):
        raise ConfigError("layer_decay: this model has no group_matcher method to name its layers; remove layer_decay")
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups: Sequence[Mapping[str, Any]] = param_groups_layer_decay(model, layer_decay=layer_decay)
    return {names[parameter]: group["lr_scale"] for group in groups for parameter in group["params"]}
