"""What was measured of scenes before an interruption: one line for each, with the shares of attention of all blocks."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrvit_lab.files import MIB, append_line, read_bounded

Shares = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Of every block: with trained weights, random weights, and equal attention; NaN if no token lies on an item."""
MAX_BYTES = 256 * MIB


def keep_scene(path: Path, number: int, shares: Shares) -> None:
    """Add a scene to the file.

    Raises:
        OSError: with the file's name.
    """
    lists = [[None if math.isnan(share) else share for share in values] for values in shares]
    append_line(path, json.dumps([number, lists]))


def read_scenes(path: Path, blocks: int) -> dict[int, Shares]:
    """The scenes in the file, by number. A line that is no scene of this many blocks is left out and measured again.

    Raises:
        OSError: if the file can't be read.
    """
    found = {}
    for line in read_bounded(path, MAX_BYTES).splitlines() if path.exists() else []:
        try:
            number, lists = json.loads(line)
            trained, random, chance = (_shares(values, blocks) for values in lists)
            found[int(number)] = trained, random, chance
        except (ValueError, TypeError, RecursionError):
            continue
    return found


def _shares(values: Sequence[Any], blocks: int) -> tuple[float, ...]:
    shares = tuple(math.nan if value is None else float(value) for value in values)
    if len(shares) != blocks or not all(math.isnan(share) or -1e-3 <= share <= 1 + 1e-3 for share in shares):
        raise ValueError("not the shares of these blocks")
    return shares
