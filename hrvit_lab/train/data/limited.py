"""A fixed subset of the samples of a data set."""

from collections.abc import Mapping
from typing import Any

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.order import epoch_order
from hrvit_lab.train.data.samples import Samples, check_index
from hrvit_lab.train.datasets import Task

CHOICE_SEED = 20


class Limited:
    """``number`` random samples of a data set, not balanced over classes, in the order of the data set.

    Raises:
        ConfigError: if the data set has fewer samples.
    """

    def __init__(self, samples: Samples, number: int) -> None:
        if number > len(samples):
            raise ConfigError(
                f"data.train_limit = {number} but there are {len(samples)} training images; use null for all images"
            )
        self.samples = samples
        self.indices = sorted(epoch_order(len(samples), CHOICE_SEED, 0)[:number].tolist())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the data set."""
        return self.samples.class_names

    @property
    def task(self) -> Task:
        """The task of the data set."""
        return self.samples.task

    @property
    def skipped(self) -> Mapping[str, int]:
        """Entries of the data set's folders that are not read, by reason."""
        return getattr(self.samples, "skipped", {})

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        check_index(index, len(self))
        return self.samples[self.indices[index]]

    def name(self, index: int) -> str:
        """The sample's name in the data set."""
        check_index(index, len(self))
        return self.samples.name(self.indices[index])
