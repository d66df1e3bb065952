"""The table of predictors of accuracy: numbers of an untrained network that may rank networks as training would.

To add one: a function of a network and a batch, and a line in `PREDICTORS`. This module does not import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Batch(NamedTuple):
    """Images with their classes.

    Attributes:
        images: (B, C, H, W), normalised.
        labels: (B,), int64.
    """

    images: "Tensor"
    labels: "Tensor"


@dataclass(frozen=True)
class Predictor:
    """One predictor.

    Attributes:
        key: its name in search files, and that of its function.
        label: as shown to users.
        better: the direction that predicts a higher accuracy.
        source: arXiv id of the paper that proposes it.
        module: of this package, with a function ``key(model, batch) -> float``.
        reads: what it needs: ``labels`` (a network that classifies whole images), ``blocks`` (an HRViT), or nothing.
    """

    key: str
    label: str
    better: Literal["higher", "lower"]
    source: str
    module: str
    reads: Literal["", "labels", "blocks"] = ""

    @property
    def function(self) -> "Callable[[nn.Module, Batch], float]":
        """The function of the predictor. It may change the network that it is given."""
        function: Callable[[nn.Module, Batch], float] = getattr(import_module(f"{__name__}.{self.module}"), self.key)
        return function


PREDICTORS: Mapping[str, Predictor] = {
    predictor.key: predictor
    for predictor in (
        Predictor("grad_norm", "GradNorm", "higher", "2101.08134", "gradients", "labels"),
        Predictor("snip", "SNIP", "higher", "1810.02340", "gradients", "labels"),
        Predictor("zico", "ZiCo", "higher", "2301.11300", "gradients", "labels"),
        Predictor("synflow", "SynFlow", "higher", "2006.05467", "flow"),
        Predictor("dss", "DSS", "higher", "2203.12217", "flow", "blocks"),
        Predictor("naswot", "NASWOT", "higher", "2006.04647", "codes"),
        Predictor("expressivity", "AZ-NAS expressivity", "higher", "2403.19232", "blocks", "blocks"),
        Predictor("progressivity", "AZ-NAS progressivity", "higher", "2403.19232", "blocks", "blocks"),
        Predictor("trainability", "AZ-NAS trainability", "higher", "2403.19232", "blocks", "blocks"),
        Predictor("loss_after_steps", "loss after 10 steps", "lower", "2006.04492", "steps", "labels"),
    )
}
"""All predictors by key. The baselines to beat are costs: parameters, MACs (AZ-NAS's complexity) and activations."""
