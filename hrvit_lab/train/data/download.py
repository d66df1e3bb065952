"""Data sets that torchvision fetches."""

from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.datasets import DATASETS


def download(key: str, root: Path | None) -> None:
    """Fetch the files of a data set into ``root``, unless they are there; torchvision checks their digests.

    Raises:
        ConfigError: the data set cannot be fetched, there is no network, or no root.
    """
    chosen = DATASETS[key]
    if chosen.torchvision is None:
        raise ConfigError(f"data set {key!r} cannot be downloaded; it reads {chosen.files}")
    if root is None:
        raise ConfigError(f"data set {key!r}: say with a root into which folder to download it")
    from torchvision import datasets

    try:
        getattr(datasets, chosen.torchvision)(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"data set {key!r} cannot be downloaded ({reason}); check the network and the folder {root}, or put its "
            f"files there by hand: {chosen.files}"
        ) from error
