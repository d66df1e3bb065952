"""Training options, shared by commands and study files. This module does not import torch."""

from pydantic import BaseModel, ConfigDict, Field


class TrainOptions(BaseModel):
    """Training options: AdamW, linear warm-up, cosine decay to 1 % of the peak, gradients clipped by value.

    This is the recipe of the paper (arXiv 2111.01236) without mixing, erasing and RandAugment, which help only in long
    trainings. The defaults are for digits at 32 × 32, where each of the 8 × 8 pixels is one token of the
    highest-resolution branch. ``TrainOptions.model_fields`` describes the fields and their units.

    Raises:
        pydantic.ValidationError: (a ValueError) naming field, value and bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(4, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(64, ge=1, le=65_536, description="maximum number of images per step")
    learning_rate: float = Field(6e-3, gt=0, le=10, description="peak learning rate")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="weight decay of AdamW, not applied to norms, biases and position tables"
    )
    warmup_epochs: float = Field(1.0, ge=0, le=10_000, description="epochs of linear warm-up from 0")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes")
    grad_clip_value: float | None = Field(1.0, gt=0, description="limit on the absolute value of each gradient element")
    max_shift: float = Field(0.0, ge=0, le=0.5, description="largest random shift, as a fraction of the image's side")
    train_limit: int | None = Field(None, ge=1, description="number of training images to use, balanced over classes")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; results can differ between numbers of threads")
