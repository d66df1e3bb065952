"""How to train, as fields that commands and study files share. Nothing here needs torch."""

from pydantic import BaseModel, ConfigDict, Field


class TrainOptions(BaseModel):
    """How to train: AdamW, linear warm-up, then a cosine down to 1 % of the peak, gradients clipped by value.

    So does the paper (arXiv 2111.01236), whose mixing, erasing and RandAugment are left out: they pay over
    hundreds of epochs, not over four. The defaults suit digits at 32 × 32, where each of the 8 × 8 pixels
    is one token of the finest branch. Fields and their units are described in ``TrainOptions.model_fields``.

    Raises:
        pydantic.ValidationError: (a ValueError) naming field, value and bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(4, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(64, ge=1, le=65_536, description="images per step, at most")
    learning_rate: float = Field(6e-3, gt=0, le=10, description="peak learning rate")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="AdamW's decay; norms, biases and position tables get none"
    )
    warmup_epochs: float = Field(1.0, ge=0, le=10_000, description="epochs of linear warm-up from 0")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="mass spread over all classes")
    grad_clip_value: float | None = Field(1.0, gt=0, description="bound on each gradient element")
    max_shift: float = Field(0.0, ge=0, le=0.5, description="random shift, as a share of the image's side")
    train_limit: int | None = Field(None, ge=1, description="train on so many images only")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; part of what makes figures repeat")
