"""What was measured of scenes before an interruption: one line for each, with the shares of attention of all blocks."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hrvit_lab.files import MIB, append_line, read_bounded

Shares = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Of every block: with trained weights, random weights, and equal attention; NaN if no token lies on an item."""
MAX_BYTES = 256 * MIB

_Share = Annotated[float, Field(ge=-1e-3, le=1 + 1e-3)] | None
_Blocks = Annotated[tuple[_Share, ...], Field(max_length=10_000)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    digest: str
    scene: int = Field(ge=0, le=10**9)
    shares: tuple[_Blocks, _Blocks, _Blocks]


def keep_scene(path: Path, digest: str, scene: int, shares: Shares) -> None:
    """Add a scene to the file.

    Args:
        digest: of the network and the scenes.
    Raises:
        OSError: with the file's name.
    """
    lists = [[None if math.isnan(share) else share for share in values] for values in shares]
    append_line(path, json.dumps({"digest": digest, "scene": scene, "shares": lists}))


def read_scenes(path: Path, digest: str, blocks: int) -> dict[int, Shares]:
    """The scenes of this digest in the file, by number. Damaged lines are left out, so their scenes are measured again.

    Raises:
        OSError: if the file can't be read.
    """
    found = {}
    for line in read_bounded(path, MAX_BYTES).splitlines() if path.exists() else []:
        try:
            read = _Line.model_validate_json(line)
        except ValueError:
            continue
        if read.digest == digest and all(len(values) == blocks for values in read.shares):
            trained, random, chance = map(_as_numbers, read.shares)
            found[read.scene] = trained, random, chance
    return found


def has_scenes(path: Path, digest: str) -> bool:
    """Whether the file has a scene of this digest."""
    return f'"digest": "{digest}"' in read_bounded(path, MAX_BYTES).decode(errors="replace")


def _as_numbers(values: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
