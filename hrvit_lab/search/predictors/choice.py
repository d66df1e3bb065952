"""The images and the seed with which predictors score networks, as a section of a search file."""

from pydantic import BaseModel, ConfigDict, Field

from hrvit_lab.study.spec import DataChoice, Whole


class BatchChoice(BaseModel):
    """The section ``predictors`` of a search file.

    Attributes:
        data: the images: name, resolution in pixels, and the folder of the files.
        batch_size: number of images, equally many of each class.
        seed: of the networks' initial weights, and of random inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: DataChoice = DataChoice()
    batch_size: Whole = Field(32, ge=4, le=4096)
    seed: Whole = Field(0, ge=0, lt=2**32)
