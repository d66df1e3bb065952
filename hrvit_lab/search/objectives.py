"""The quantities that a search can improve or bound: costs, latency, predictors, and accuracy after training."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import Counts, count
from hrvit_lab.files import user_path
from hrvit_lab.metrics import METRICS
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.predictors.kept import KeptScores
from hrvit_lab.search.trainings import PREDICTED_LATENCY, TRAINED

if TYPE_CHECKING:
    from hrvit_lab.latency.predict import Profile
    from hrvit_lab.search.predictors import Batch

Quantity = Callable[[Counts], float]
"""A number of a network, from its costs in closed form."""


def _cost(key: str) -> Quantity:
    return lambda counts: float(getattr(counts, key))


COSTS: Mapping[str, Quantity] = {key: _cost(key) for key, metric in METRICS.items() if metric.group == "cost"}

OBJECTIVES = (*COSTS, PREDICTED_LATENCY, *PREDICTORS, *TRAINED)
"""Names of all quantities."""


class Quantities:
    """Computes quantities of networks. Nothing is built or run unless a predictor is among them.

    Args:
        keys: of `OBJECTIVES`, without those that need trainings.
        resolution: input in pixels, for costs.
        choice: of the images for predictors.
        profile: file of the latencies from which latency is predicted.
        folder: where scores are kept; None: in memory only.
    """

    def __init__(
        self,
        keys: Sequence[str],
        resolution: tuple[int, int],
        choice: BatchChoice,
        profile: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.keys = tuple(keys)
        self.predictors = [key for key in self.keys if key in PREDICTORS]
        self._resolution = resolution
        self._choice = choice
        self._profile = profile
        self._kept = KeptScores(folder, choice) if self.predictors else None

    def __call__(self, config: HRViTConfig) -> tuple[float, ...]:
        """The quantities of a network, in the order of the keys; a score may be infinite."""
        counts = count(config, self._resolution)
        found = dict(self._scores(config))
        if PREDICTED_LATENCY in self.keys:
            found[PREDICTED_LATENCY] = self._latency_ms(config)
        return tuple(found[key] if key in found else COSTS[key](counts) for key in self.keys)

    def check(self, config: HRViTConfig) -> None:
        """Check that the quantities can be computed for a network, without building it.

        Raises:
            ConfigError: if the profile is missing, an input is too small for the network, or a part is not supported.
        """
        count(config, self._resolution)
        if self.predictors:
            from hrvit_lab.search.predictors.score import check_head

            config.check_resolution(self._choice.data.resolution)
            for key in self.predictors:
                check_head(key, config)
        if PREDICTED_LATENCY in self.keys:
            self._latency_ms(config)

    def load_images(self) -> None:
        """Load the images of predictors; nothing without predictors.

        Raises:
            ConfigError: for missing files, or fewer images than classes.
        """
        if self.predictors:
            _ = self._batch

    def _latency_ms(self, config: HRViTConfig) -> float:
        from hrvit_lab.latency.predict import predict

        return predict(config, self._measured, self._resolution).value

    @cached_property
    def _measured(self) -> "Profile":
        from hrvit_lab.latency.predict import load_profile  # imported here: costs do not need it

        assert self._profile is not None  # checked with the search file
        return load_profile(user_path(self._profile))

    def _scores(self, config: HRViTConfig) -> Mapping[str, float]:
        if self._kept is None:
            return {}
        known = self._kept.find(config.id)
        if missing := [key for key in self.predictors if key not in known]:
            from hrvit_lab.search.predictors.score import score_config  # imported here: costs do not need torch

            batch, classes = self._batch
            self._kept.add(config.id, score_config(config, missing, batch, classes, self._choice.seed))
            known = self._kept.find(config.id)
        return known

    @cached_property
    def _batch(self) -> "tuple[Batch, int]":
        from hrvit_lab.search.predictors.score import load_batch

        return load_batch(self._choice)
