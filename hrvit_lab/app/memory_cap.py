"""Memory that a network needs, in closed form, and the limits of the app: counted before anything is allocated."""

from functools import lru_cache

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.count import Counts, UncountedOperator, count
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.files import MIB
from hrvit_lab.network.baselines import NetworkConfig, TimmConfig
from hrvit_lab.parts.ops import dtype_bytes

MAX_WEIGHT_BYTES = 1024 * MIB
"""Several networks are kept at a time."""

MAX_BYTES = 4096 * MIB
MAX_SIDE = 1024
"""Of images, in pixels."""

OCCLUDED = 16
"""Images in a batch of `hrvit_lab.insight.evidence`."""

TIMM_SIDE = 224
"""Of the image with which the weights of a model of timm are counted."""

GRADIENTS = 2
"""Memory of a forward pass with gradients, divided by that of the activations: 1.5 was measured, for b1 and b3."""


def check_weights(name: str, config: NetworkConfig) -> None:
    """Check that a network is small enough to be built.

    Raises:
        ConfigError: if its weights exceed the limit.
    """
    _check_weights(name, _count(config, config.strides[-1] if isinstance(config, HRViTConfig) else TIMM_SIDE))


def check_pass(name: str, counts: Counts) -> None:
    """Check that a network is small enough to be built and run: its weights and all activations of one image.

    Raises:
        ConfigError: if they exceed the limits.
    """
    _check_weights(name, counts)
    _check_bytes(name, counts.resolution[0], "", counts.weight_bytes() + _activations(counts))


def check_view(name: str, config: NetworkConfig, side: int, what: str) -> None:
    """Check that a view of "Look inside" fits in memory.

    Args:
        side: of the image, in pixels.
        what: the view, a key of `hrvit_lab.insight.what.WHAT`.
    Raises:
        ConfigError: if it exceeds the limit, or the input is smaller than the coarsest branch's stride.
    """
    if isinstance(config, HRViTConfig):
        config.check_resolution(side)
    _check_bytes(name, side, f" for {what.replace('_', ' ')}", view_bytes(config, side, what))


def view_bytes(config: NetworkConfig, side: int, what: str) -> int:
    """Memory of a view, from above: weights, and the activations that are kept at the same time."""
    counts = _count(config, side)
    match what:
        case "evidence" if isinstance(config, HRViTConfig):
            return peak_memory_bytes(config, side, batch_size=OCCLUDED)
        case "evidence":
            return counts.weight_bytes() + OCCLUDED * _activations(counts)
        case "receptive_field":
            return counts.weight_bytes() + GRADIENTS * _activations(counts)
        case _:
            return counts.weight_bytes() + _activations(counts)


def _count(config: NetworkConfig, side: int) -> Counts:
    if isinstance(config, HRViTConfig):
        return count(config, side)
    return _count_timm(config.model, side)


@lru_cache(maxsize=64)  # the name is typed by users
def _count_timm(model: str, side: int) -> Counts:
    """Counted by a pass without data, which takes a second."""
    try:
        return count(TimmConfig(model), side)
    except UncountedOperator as error:
        raise ConfigError(f"the memory of {model} can't be counted: {error}") from None


def _activations(counts: Counts) -> int:
    return dtype_bytes("float32") * counts.activations


def _check_weights(name: str, counts: Counts) -> None:
    if counts.weight_bytes() > MAX_WEIGHT_BYTES:
        raise ConfigError(
            f"{name} has {counts.weight_mib:,.0f} MiB of weights, and the app builds networks of at most "
            f"{MAX_WEIGHT_BYTES // MIB:,} MiB; choose a smaller network, or use the command line"
        )


def _check_bytes(name: str, side: int, what: str, needed: int) -> None:
    if needed > MAX_BYTES:
        raise ConfigError(
            f"{name} needs about {needed // MIB:,} MiB{what} at {side}×{side} px, and the app allows "
            f"{MAX_BYTES // MIB:,} MiB; choose a smaller input or a smaller network"
        )
