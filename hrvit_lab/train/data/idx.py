"""Files of the idx format, and the four of Fashion-MNIST (arXiv 1708.07747)."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.find import FASHION_FILES, find_idx

MAX_IDX_BYTES = 512 * 2**20
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def read_fashion(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 (N, 28, 28), and labels, uint8 (N,), of ``train`` or ``t10k``.

    Raises:
        ConfigError: for missing or broken files, or files that do not match each other.
    """
    images, labels = (
        read_idx(find_idx(folder, f"{prefix}-{kind}-idx{ndim}-ubyte"), ndim=ndim) for kind, ndim in FASHION_FILES
    )
    if len(images) != len(labels):
        raise ConfigError(f"{folder}: {len(images)} {prefix} images, {len(labels)} labels; download them again")
    if labels.max() >= len(FASHION_CLASSES):
        raise ConfigError(f"{folder}: a {prefix} label is {labels.max()}; Fashion-MNIST has 0 to 9")
    return images, labels


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Args:
        path: the file; gzipped if it ends in ``.gz``.
        ndim: the expected number of dimensions.
    Returns:
        uint8 array of the shape in its header.
    Raises:
        ConfigError: if it is not such a file, its length differs from its header, or it is larger than
            ``MAX_IDX_BYTES``.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack(f">{1 + ndim}I", file.read(4 * (1 + ndim)))
            if magic != 0x0800 | ndim:
                raise ConfigError(
                    f"{path} is not a {ndim}-dimensional idx file of bytes (it begins with {magic:#010x})"
                )
            size = math.prod(shape)
            if not 0 < size <= MAX_IDX_BYTES:
                raise ConfigError(f"{path} has {size} bytes of data by its header; supported are 1 to {MAX_IDX_BYTES}")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ConfigError(f"{path} cannot be read ({error}); download it again") from error
    if len(body) != size:
        raise ConfigError(f"{path} does not contain the {size} bytes given in its header; download it again")
    return np.frombuffer(bytearray(body), dtype=np.uint8).reshape(shape)
