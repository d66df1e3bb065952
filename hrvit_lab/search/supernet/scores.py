"""The table of networks that were scored with a supernet's weights, a row for each."""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded, unguarded, write_csv

FOLDER = "supernet"
"""In the folder of the study's results."""
TABLE = "networks.csv"
MAX_BYTES = 16 * MIB


class Row(NamedTuple):
    """Attributes:
    variant: the network's name in the study.
    config_id: identifies the network.
    params: parameters of the network itself.
    macs: at the resolution of the training.
    top1: in percent, of the validation images, with inherited weights.
    val_loss: mean cross-entropy.
    """

    variant: str
    config_id: str
    params: int
    macs: int
    top1: float
    val_loss: float


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Replace the table."""
    write_csv(folder / TABLE, [Row._fields, *rows])


def read_rows(folder: Path) -> dict[str, Row]:
    """The rows by ``config_id``; none if there is no table.

    Raises:
        ConfigError: if the table can't be read.
    """
    path = folder / TABLE
    try:
        lines = csv.DictReader(io.StringIO(read_bounded(path, MAX_BYTES).decode()))
        rows = [
            Row(unguarded(line["variant"]), line["config_id"], int(line["params"]), int(line["macs"]),
                float(line["top1"]), float(line["val_loss"]))
            for line in lines
        ]  # fmt: skip
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise ConfigError(
            f"{path} can't be read ({type(error).__name__}); remove it to score the networks again"
        ) from None
    if not all(math.isfinite(row.top1) for row in rows):
        raise ConfigError(f"{path} has a top1 that is not a number; remove it to score the networks again")
    return {row.config_id: row for row in rows}
