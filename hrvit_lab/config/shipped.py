"""Trained networks that ship with the package: the files of `hrvit_lab/weights/`.

A name is that of a preset, a dot, and the data set, as in timm: ``hrvit_nano.fashion_mnist``. To add one: three files,
``NAME.yaml`` (a `Shipped`), ``NAME.safetensors`` (the weights) and ``NAME.md`` (the model card).
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hrvit_lab.config.yaml_text import read_text, read_yaml

FOLDER = Path(__file__).resolve().parent.parent / "weights"


class Shipped(BaseModel):
    """A trained network: its preprocessing, classes and score.

    Attributes:
        name: of the network, PRESET.DATASET.
        resolution_px: height and width of the images in training and evaluation.
        mean, std: of each channel, of pixels in 0…1.
        interpolation, crop_fraction: of the test transform.
        classes: names of the classes, in order.
        changes: fields of the config that differ from the preset's, except for the number of classes.
        score, score_percent: name and value of the score on the validation images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    resolution_px: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_fraction: float
    classes: tuple[str, ...]
    changes: dict[str, Any] = {}
    score: Literal["top1", "miou"]
    score_percent: float = Field(ge=0, le=100)

    @field_validator("changes")
    @classmethod
    def _no_own_fields(cls, changes: dict[str, Any]) -> dict[str, Any]:
        if own := changes.keys() & {"name", "num_classes"}:
            raise ValueError(f"{min(own)} is that of the network; remove it from changes")
        return changes

    @property
    def architecture(self) -> str:
        """Name of the preset."""
        return self.name.partition(".")[0]

    @property
    def dataset(self) -> str:
        """Name of the data set, and of the recipe with the same preprocessing."""
        return self.name.partition(".")[2]

    @property
    def weights(self) -> Path:
        """File of the weights."""
        return FOLDER / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """File of the model card."""
        return FOLDER / f"{self.name}.md"


@cache
def shipped() -> dict[str, Shipped]:
    """The trained networks, by name."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {path.stem: Shipped(name=path.stem, **read_yaml(read_text(path, "a network"), str(path))) for path in files}
