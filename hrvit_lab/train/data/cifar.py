"""CIFAR-10 and CIFAR-100: 50,000 colour images of 32 × 32 to train on and 10,000 to validate, in torchvision's file
layout.

The files are pickles. They are read by an unpickler that creates only arrays and plain values, so that untrusted files
cannot run code.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.in_memory import ArrayImages
from hrvit_lab.train.data.samples import need_root

MAX_FILE_BYTES = 512 * 2**20
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("numpy", "dtype"), ("_codecs", "encode"),
}  # fmt: skip
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "val": ("test_batch",)}
WHOLE = {"train": ("train",), "val": ("test",)}


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def open_cifar10(split: str, root: Path | None) -> ArrayImages:
    """CIFAR-10.

    Args:
        root: the folder ``cifar-10-batches-py``, or its parent.
    """
    folder = _folder("cifar10", root, "cifar-10-batches-py")
    return _open(folder, BATCHES[split], "labels", "batches.meta", "label_names", f"{split} image")


def open_cifar100(split: str, root: Path | None) -> ArrayImages:
    """CIFAR-100 with its 100 fine classes.

    Args:
        root: the folder ``cifar-100-python``, or its parent.
    """
    folder = _folder("cifar100", root, "cifar-100-python")
    return _open(folder, WHOLE[split], "fine_labels", "meta", "fine_label_names", f"{split} image")


def _folder(key: str, root: Path | None, name: str) -> Path:
    root = need_root(key, root)
    return root / name if (root / name).is_dir() else root


def _open(folder: Path, files: tuple[str, ...], labels: str, meta: str, names: str, prefix: str) -> ArrayImages:
    class_names = _values(folder / meta, names)[0]
    parts = [_values(folder / file, "data", labels) for file in files]
    images, targets = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2))
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32 or len(images) != len(targets):
        raise ConfigError(
            f"{folder}: {files[0]} does not contain 32×32 colour images with one label each; download it again"
        )
    if not len(targets) or targets.min() < 0 or targets.max() >= len(class_names):
        raise ConfigError(f"{folder}: a label of {files[0]} is not in 0 … {len(class_names) - 1}; download it again")
    stored = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArrayImages(np.ascontiguousarray(stored), targets, tuple(map(str, class_names)), prefix)


def _values(path: Path, *keys: str) -> list[Any]:
    """The values of some keys of the dictionary in a file.

    Raises:
        ConfigError: if the file is missing or broken, or has other objects than arrays and plain values.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has {size:,} bytes, more than CIFAR's files; download it again")
        with path.open("rb") as file:
            content = _Arrays(file, encoding="latin1").load()
        return [content[key] for key in keys]
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}); check the root, or download it again"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # a broken pickle can raise almost any exception
        raise ConfigError(
            f"{path} is not a file of CIFAR ({' '.join(str(error).split())[:80]}); download it again"
        ) from error
