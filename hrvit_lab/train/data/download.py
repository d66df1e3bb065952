"""Data sets that torchvision downloads."""

from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.datasets import DATASETS


def download(key: str, root: Path | None) -> None:
    """Download the files of a data set to ``root``, unless they exist; torchvision checks their digests.

    Raises:
        ConfigError: the data set cannot be downloaded, there is no network, or no root.
    """
    chosen = DATASETS[key]
    if chosen.torchvision is None:
        raise ConfigError(f"data set {key!r} cannot be downloaded; provide {chosen.files}")
    if root is None:
        raise ConfigError(f"data set {key!r}: no folder to download it to; give one as root")
    from torchvision import datasets

    try:
        getattr(datasets, chosen.torchvision)(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"data set {key!r} cannot be downloaded ({reason}); check the network and the folder {root}, or copy its "
            f"files there: {chosen.files}"
        ) from error
