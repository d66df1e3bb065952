"""Capture inputs and outputs of named modules during a forward pass, without changing it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError, suggest


@dataclass(frozen=True, eq=False)
class Captured:
    """Tensors of one forward pass.

    Attributes:
        inputs: the first argument of each module, by name.
        outputs: the output of each module, by name.
        result: the output of the network.
    """

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    result: Any


def capture(
    model: nn.Module,
    image_BCHW: Tensor,
    *,
    outputs: Iterable[str] = (),
    inputs: Iterable[str] = (),
    gradients: bool = False,
) -> Captured:
    """Run the network once in evaluation mode and keep inputs and outputs of some modules.

    Args:
        model: any network; its modes, weights and hooks are as before afterwards.
        image_BCHW: (B, C_in, H, W).
        outputs, inputs: names of modules, as in ``model.named_modules()``.
        gradients: keep the graph. Otherwise nothing has a gradient.
    Returns:
        The tensors themselves, not copies: do not overwrite them.
    Raises:
        ConfigError: for a name that the network does not have, or a module that did not run.
    """
    wanted_outputs, wanted_inputs = list(outputs), list(inputs)
    modules = find_modules(model, [*wanted_outputs, *wanted_inputs])
    seen = Captured({}, {}, None)

    def keep_input(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen.inputs.setdefault(name, arguments[0])

        return hook

    def keep_output(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            seen.outputs.setdefault(name, output)

        return hook

    hooks = [modules[name].register_forward_pre_hook(keep_input(name)) for name in wanted_inputs]
    hooks += [modules[name].register_forward_hook(keep_output(name)) for name in wanted_outputs]
    try:
        with evaluating(model), torch.set_grad_enabled(gradients):
            result = model(image_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    for names, kept in ((wanted_outputs, seen.outputs), (wanted_inputs, seen.inputs)):
        if silent := next((name for name in names if name not in kept), None):
            raise ConfigError(f"module {silent!r} did not run in the forward pass; choose a module that does")
    return Captured(seen.inputs, seen.outputs, result)


def find_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules with these names.

    Raises:
        ConfigError: for a name that the network does not have; suggests similar ones.
    """
    known = dict(model.named_modules())
    if unknown := next((name for name in names if name not in known), None):
        near = suggest(unknown, [name for name in known if name.count(".") == unknown.count(".") and name])
        remedy = near if near.startswith("did") else "model.named_modules() lists the names"
        raise ConfigError(f"the network has no module {unknown!r:.80}; {remedy}")
    return {name: known[name] for name in names}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context in which all modules are in evaluation mode; afterwards each has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
