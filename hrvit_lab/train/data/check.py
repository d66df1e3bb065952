"""Read every sample of a split once: counts of classes, image sizes, and files that cannot be used."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from PIL import Image

from hrvit_lab.train.data.broken import BrokenSample
from hrvit_lab.train.data.samples import IGNORED, Samples

CHUNK = 32
"""Samples per task of a worker process."""


@dataclass
class Report:
    """The result of checking samples of a split.

    Attributes:
        counts: int64 (256,): images per class; for segmentation, pixels per label, including ``IGNORED``. Longer for
            more than 256 classes.
        sizes: (width, height) → number of images.
        broken: a sentence for each sample that cannot be used.
    """

    counts: np.ndarray
    samples: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Add the result of other samples."""
        self.counts = self.counts + other.counts
        self.samples += other.samples
        for size, number in other.sizes.items():
            self.sizes[size] = self.sizes.get(size, 0) + number
        self.broken += other.broken

    def ignored(self) -> int:
        """Number of ignored pixels, for segmentation."""
        return int(self.counts[IGNORED])


def check_samples(samples: Samples, *, workers: int = 1, on_progress: Callable[[int], None] | None = None) -> Report:
    """Read every sample.

    Args:
        workers: number of processes; with 1, this process reads.
        on_progress: called with the number of samples read so far.
    """
    total = _empty(samples)
    for part in _parts(samples, workers):
        total.add(part)
        if on_progress is not None:
            on_progress(total.samples)
    return total


def _parts(samples: Samples, workers: int) -> Iterator[Report]:
    chunks = [range(first, min(first + CHUNK, len(samples))) for first in range(0, len(samples), CHUNK)]
    if workers == 1:
        yield from (_read(samples, chunk) for chunk in chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _keep, (samples,))
    try:
        yield from pool.map(_read_kept, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


_kept: list[Samples] = []
"""In a worker: the samples, sent once at its start."""


def _keep(samples: Samples) -> None:
    _kept.append(samples)


def _read_kept(chunk: range) -> Report:
    return _read(_kept[0], chunk)


def _read(samples: Samples, chunk: range) -> Report:
    found = _empty(samples)
    for index in chunk:
        found.samples += 1
        try:
            image, target = samples[index]
        except BrokenSample as error:
            found.broken.append(str(error))
            continue
        found.sizes[image.size] = found.sizes.get(image.size, 0) + 1
        labels = np.asarray(target).ravel() if isinstance(target, Image.Image) else np.array([target])
        found.counts += np.bincount(labels, minlength=len(found.counts))
    return found


def _empty(samples: Samples) -> Report:
    return Report(np.zeros(max(256, len(samples.class_names)), np.int64))
