"""Batches of a training. Their images depend on (seed, epoch), and augmentations on (seed, epoch, image).

So a training gives the same weights with any number of workers and after any interruption, and its global batches do
not depend on the number of processes.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.order import epoch_order, kept_generators, rank_indices, seed_sample
from hrvit_lab.train.data.samples import Samples
from hrvit_lab.train.distributed import Ranks

Transform = Callable[[Any, Any], tuple[Tensor, Any]]
"""(image, target) of the data set → (float32 (C, H, W), target for the loss)."""


class Batch(NamedTuple):
    """Attributes:
    images: float32 (B, C, H, W).
    targets: of the task, B in front.
    indices: int64 (B,), of the images in the data set.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of full batches of an epoch; the omitted images differ between epochs.

    A data set smaller than a batch is one batch.
    """
    return max(1, num_images // batch_size)


def training_batches(
    samples: Samples,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    ranks: Ranks,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """This process's part of the batches of steps ``start`` to ``stop`` − 1.

    Args:
        batch_size: over all processes.
        workers: number of data loader workers.
    Raises:
        ConfigError: if a batch has fewer images than there are processes; during iteration, if an image cannot be
            read.
    """
    if min(batch_size, len(samples)) < ranks.size:
        raise ConfigError(
            f"a batch of {min(batch_size, len(samples))} images cannot be split over {ranks.size} processes; "
            "use fewer processes or a larger batch"
        )
    loader: DataLoader[Any] = DataLoader(
        _Augmented(samples, transform, seed),
        batch_sampler=_Steps(len(samples), batch_size, seed, start, stop, ranks),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # otherwise the workers' seed comes from the global generator
    )
    return _sentences(loader)


def evaluation_batches(
    samples: Samples, transform: Transform, *, batch_size: int, ranks: Ranks, workers: int = 0
) -> Iterator[Batch]:
    """This process's images in order, each once: rank r has r, r + W, r + 2W, … of W processes.

    All images of a batch have the same size; a batch ends where the size changes.
    """
    own = list(rank_indices(len(samples), ranks.rank, ranks.size))
    loader: DataLoader[Any] = DataLoader(
        _Plain(samples, transform), sampler=own, batch_size=None, num_workers=workers, worker_init_fn=_begin,
        generator=torch.Generator(), collate_fn=_as_is,
    )  # fmt: skip
    return _grouped(_sentences(loader), batch_size)


class _Steps(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of this process for every step."""

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int, stop: int, ranks: Ranks) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps, self.ranks = range(start, stop), ranks

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch, order, known = steps_per_epoch(self.num_images, self.batch_size), torch.empty(0), -1
        for step in self.steps:
            epoch, part = divmod(step, per_epoch)
            if epoch != known:
                order, known = epoch_order(self.num_images, self.seed, epoch), epoch
            indices = order[part * self.batch_size : (part + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in indices[self.ranks.rank :: self.ranks.size]]


class _Augmented(Dataset[tuple[Tensor, Any, int]]):
    def __init__(self, samples: Samples, transform: Transform, seed: int) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, int]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[tuple[Tensor, Any, int]]:
        """All images of a batch: the loader calls this method where there is one."""
        with kept_generators():
            return [self._augmented(*key) for key in keys]

    def _augmented(self, epoch: int, index: int) -> tuple[Tensor, Any, int]:
        image, target = self.samples[index]
        seed_sample(self.seed, epoch, index)
        x_CHW, target = self.transform(image, target)
        return x_CHW, target, index


class _Plain(Dataset[tuple[Tensor, Any, int]]):
    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, index: int) -> tuple[Tensor, Any, int]:
        x_CHW, target = self.transform(*self.samples[index])
        return x_CHW, target, index


def _collate(items: list[tuple[Tensor, Any, int]]) -> Batch:
    images, targets, indices = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack([torch.as_tensor(y) for y in targets]), torch.tensor(indices))


def _as_is(item: Any) -> Any:
    return item


def _grouped(items: Iterator[tuple[Tensor, Any, int]], batch_size: int) -> Iterator[Batch]:
    """Batches of consecutive images of equal size."""
    waiting: list[tuple[Tensor, Any, int]] = []
    for item in items:
        same = not waiting or _shapes(item) == _shapes(waiting[0])
        if waiting and (not same or len(waiting) == batch_size):
            yield _collate(waiting)
            waiting = []
        waiting.append(item)
    if waiting:
        yield _collate(waiting)


def _shapes(item: tuple[Tensor, Any, int]) -> tuple[Any, Any]:
    return item[0].shape, torch.as_tensor(item[1]).shape


def _sentences(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's items; a ConfigError of a worker is raised again without the worker's traceback."""
    iterator: Any = iter(loader)
    try:
        yield from iterator
    except ConfigError as error:
        text = str(error)
        if text.startswith("Caught "):  # from a worker: a traceback that ends with the message
            text = text.strip().splitlines()[-1].partition(": ")[2]
        raise ConfigError(text) from None
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two: killed while it sent a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise ConfigError(
            "a data loader worker was killed, possibly because memory ran out; lower run.workers (-j) "
            "and continue with --resume auto"
        ) from None
    finally:
        # An error of a worker refers to the loader in a cycle. Workers ignore SIGTERM, so those of a loader that was
        # not collected would keep Python from exiting.
        if loader.num_workers:
            with contextlib.suppress(RuntimeError):  # of PyTorch's handler, which reports a killed worker at any time
                iterator._shutdown_workers()


def _begin(worker: int) -> None:
    """Initialize a worker: one thread, and signals are ignored. The training process saves its state, then ends the
    workers.

    If a signal to the process group killed a worker, an error would be raised in the training process during a step.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
