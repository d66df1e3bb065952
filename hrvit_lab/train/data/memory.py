"""Labelled images in memory with a fixed split, for the short proxy training.

Images are kept as stored (uint8, original size); ``ImageData.inputs`` converts a batch to inputs of a network. This
takes a few milliseconds per batch; Fashion-MNIST needs 55 MB instead of 3.4 GB (float32, 3 × 64 × 64).

Shapes: N images of a set, B of a batch; C stored channels (1 or 3), h × w stored pixels, H × W pixels of the input.

To add a data set, write a loader and add a line to ``LOADERS`` and one to ``hrvit_lab.train.datasets.IN_MEMORY``.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvit_lab.train.data.find import (
    DEBIAN_FASHION_MNIST,
    FASHION_SPLITS,
    check_limit,
    check_request,
    find_digits,
    find_images,
)
from hrvit_lab.train.data.idx import FASHION_CLASSES, read_fashion
from hrvit_lab.train.data.image_files import read_image
from hrvit_lab.train.datasets import IN_MEMORY

SPLIT_SEED = 20  # part of the protocol: another seed gives another validation set, with results that are not comparable


@dataclass(frozen=True, eq=False)
class Pixels:
    """The result of a loader.

    Attributes:
        train_images, val_images: uint8 (N, C, h, w), C is 1 or 3.
        train_labels, val_labels: int64 (N,), indices into ``class_names``.
        skipped: entries of an image folder that were not read: reason → number.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    class_names: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, eq=False)
class ImageData(Pixels):
    """A data set for training: stored images, labels, and their conversion to inputs of size ``resolution``.

    Attributes:
        name: its key in ``IN_MEMORY``.
        source: origin of the images, as shown to users.
        resolution: (height, width) of the network's input, in pixels.
        mean, std: of the training pixels scaled to 0…1, for each of the three channels.
    """

    name: str
    source: str
    resolution: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def majority_top1(self) -> float:
        """Validation top-1 in percent of always predicting the most frequent class of the training set."""
        majority = self.train_labels.bincount().argmax()
        return 100.0 * (self.val_labels == majority).double().mean().item()

    def inputs(self, images: Tensor) -> Tensor:
        """Convert stored images to inputs of the network: normalized, resized bilinearly, three channels.

        Args:
            images: uint8 (B, C, h, w), from ``train_images`` or ``val_images``, on any device.
        Returns:
            float32 (B, 3, H, W) on the same device.
        """
        channels = images.shape[1]
        mean = torch.tensor(self.mean[:channels], device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std[:channels], device=images.device).view(-1, 1, 1)
        x_BCHW = (images.float() / 255 - mean) / std
        if x_BCHW.shape[-2:] != self.resolution:
            x_BCHW = F.interpolate(x_BCHW, self.resolution, mode="bilinear", antialias=True)
        return x_BCHW.repeat(1, 3 // channels, 1, 1)

    def limited(self, train_limit: int | None) -> "ImageData":
        """The same data with only ``train_limit`` training images (see ``balanced_subset``).

        Mean and std are those of the remaining images. The validation set is not changed. With None, or a limit above
        the number of images, nothing changes.
        """
        if train_limit is None or train_limit >= len(self.train_labels):
            return self
        keep = balanced_subset(self.train_labels, train_limit)
        images = self.train_images[keep]
        mean, std = mean_and_std(images)
        return dataclasses.replace(self, train_images=images, train_labels=self.train_labels[keep], mean=mean, std=std)


def load_dataset(
    name: str,
    *,
    resolution: int | Sequence[int],
    root: str | Path | None = None,
    train_limit: int | None = None,
) -> ImageData:
    """Load a data set of ``IN_MEMORY`` with its fixed split.

    Args:
        name: ``digits`` (scikit-learn's, split 80/20 by class with ``SPLIT_SEED``), ``fashion_mnist`` (its
            own train and test), or ``folder`` (``root/train/CLASS/…``, ``root/val/CLASS/…``).
        resolution: side, or (height, width), of the network's input in pixels.
        root: folder with the files; needed by ``folder``, optional for ``fashion_mnist``. ``~`` is the home folder.
        train_limit: maximum number of training images, the same ones every time; others of a folder are not decoded.
    Raises:
        ConfigError: for an unknown name, missing or broken files, or images that do not fit into memory.
    """
    size, folder = check_request(name, resolution, root)
    pixels = LOADERS[name](size, folder, train_limit)
    mean, std = mean_and_std(pixels.train_images)
    data = ImageData(**vars(pixels), name=name, source=IN_MEMORY[name].source, resolution=size, mean=mean, std=std)
    return data.limited(train_limit)


def mean_and_std(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std of uint8 images (N, C, h, w) scaled to 0…1, for each of three channels (grey is repeated).

    Computed from histograms of the channels, so exact for any number of images. A constant channel has std 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        histogram = images[:, channel].flatten().bincount(minlength=256).double()
        share = histogram / histogram.sum()
        mean = (share * values).sum()
        std = (share * (values - mean) ** 2).sum().sqrt()
        means.append(mean.item())
        stds.append(std.item() or 1.0)
    repeat = 3 // len(means)
    return tuple(means * repeat), tuple(stds * repeat)  # type: ignore[return-value]


def balanced_subset(labels: Tensor, limit: int) -> Tensor:
    """Ascending indices of a fixed subset of ``limit`` images with (nearly) equal numbers per class.

    Images are taken from the classes in turn; if a class has no more images, the others provide more.

    Args:
        labels: int64 (N,).
        limit: from the number of classes to N.
    """
    check_limit(len(labels.unique()), limit)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rank_in_class = torch.empty_like(labels)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        rank_in_class[members] = torch.arange(len(members))
    return rank_in_class.argsort(stable=True)[:limit].sort().values


# -- the data sets ---------------------------------------------------------------------------------


def load_digits(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> Pixels:
    """The 1,797 8 × 8 digits of scikit-learn; 1,437 for training and 360 for validation."""
    # Imported here because it takes a second.
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    find_digits(resolution, root, train_limit)
    grey, labels = sklearn_digits(return_X_y=True)
    train, val = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED)
    images = torch.from_numpy(grey * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)  # stored as 0…16
    targets = torch.from_numpy(labels).long()
    train, val = sorted(train), sorted(val)
    return Pixels(images[train], targets[train], images[val], targets[val], tuple("0123456789"))


def load_fashion_mnist(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> Pixels:
    """Fashion-MNIST (arXiv 1708.07747): 60,000 28 × 28 images for training and 10,000 for validation."""

    def split(prefix: str) -> tuple[Tensor, Tensor]:
        images, labels = read_fashion(root or DEBIAN_FASHION_MNIST, prefix)
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()

    train, val = map(split, FASHION_SPLITS)
    return Pixels(*train, *val, FASHION_CLASSES)


def load_folder(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> Pixels:
    """A folder of images, ``train/CLASS/…`` and ``val/CLASS/…``: scaled to cover the resolution, cropped.

    ``image_folders`` selects the files, ``image_files`` converts them to RGB.
    """
    found = find_images(resolution, root, train_limit)
    train_files = found.train
    if train_limit is not None and train_limit < len(train_files):
        labels = torch.tensor([label for _, label in train_files])
        train_files = [train_files[i] for i in balanced_subset(labels, train_limit).tolist()]
    return Pixels(
        *_decode(train_files, resolution), *_decode(found.val, resolution), found.class_names, skipped=found.skipped
    )


def _decode(files: list[tuple[Path, int]], resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, H, W) and labels int64 (N,) of (file, label) pairs."""
    images = torch.empty(len(files), 3, *resolution, dtype=torch.uint8)
    for image_CHW, (path, _) in zip(images, files, strict=True):
        image_CHW.copy_(torch.from_numpy(read_image(path, resolution)).permute(2, 0, 1))
    return images, torch.tensor([label for _, label in files])


LOADERS: dict[str, Callable[[tuple[int, int], Path | None, int | None], Pixels]] = {
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
    "folder": load_folder,
}
"""The loader of each data set of ``IN_MEMORY``."""
