"""The sections of a recipe: every setting with its type, bounds, default and meaning. This module does not import
torch.

By default, optional features are off. Names include the unit where it is not obvious: ``_px`` pixels, ``_epochs``,
``_iterations`` (optimizer steps), ``_s`` seconds. Shares, probabilities and rates have no unit.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hrvit_lab.config import TABLES, own_name, preset_names, suggest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TIMM = "timm:"
MAX_SIDE = 4096
MAX_LENGTH = 100_000_000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Switch = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Number = Annotated[float, Field(strict=True)]
Share = Annotated[Number, Field(ge=0, le=1)]
DropRate = Annotated[Number, Field(ge=0, lt=1)]
LearningRate = Annotated[Number, Field(ge=0, le=100)]
Alpha = Annotated[Number, Field(ge=0, le=100)]
Side = Annotated[int, Field(strict=True, ge=4, le=MAX_SIDE)]
Length = Annotated[int, Field(strict=True, ge=1, le=MAX_LENGTH)]
Size = Annotated[tuple[Side, Side], BeforeValidator(lambda value: [value] * 2 if isinstance(value, int) else value)]
"""(height, width) in pixels; one number means square."""
Colour = tuple[Share, Share, Share]
Deviation = Annotated[Number, Field(gt=0, le=10)]
Factor = Annotated[Number, Field(gt=0, le=16)]
Interpolation = Literal["bilinear", "bicubic", "random"]


class Section(BaseModel):
    """Base class of all sections: frozen, finite numbers, no unknown settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Data set, image size and batch sizes."""

    name: str = Field(pattern="^[a-z0-9_]{1,50}$", description="data set, a name of hrvit-lab data list")
    options: dict[str, Any] = Field(
        default_factory=dict,
        max_length=20,
        description="options of the data set, such as size and number of generated scenes",
    )
    resolution_px: Size = Field((224, 224), description="height and width of a training image or crop")
    mean: Colour | None = Field(
        IMAGENET_MEAN, description="mean of each channel, of pixels in 0…1; null: of the training images (proxy only)"
    )
    std: tuple[Deviation, Deviation, Deviation] | None = Field(
        IMAGENET_STD, description="standard deviation of each channel, as mean"
    )
    train_limit: Count | None = Field(
        None, description="number of training images to use, the same ones every time; null: all"
    )
    batch_size_per_process: Annotated[int, Field(strict=True, ge=1, le=65_536)] = Field(
        128, description="images per forward pass of each process"
    )
    global_batch_size: Count = Field(
        128, description="images per optimizer step, over all processes and accumulated passes"
    )

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "root" in options:
            raise ValueError("root is not an option of a data set; give the folder with --data")
        for name, value in options.items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(f"{name!r:.80} = {value!r:.80} is not a string, a number, true, false or null")
        return options

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.global_batch_size % self.batch_size_per_process:
            raise ValueError(
                f"global_batch_size = {self.global_batch_size} is not a multiple of batch_size_per_process = "
                f"{self.batch_size_per_process}; change one of them"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("only one of mean and std is given; give both or neither")
        return self


class Model(Section):
    """The network and its initial weights."""

    name: Name = Field(
        description="a preset, timm:NAME, the YAML file of a config, or a trained network (hrvit_nano.fashion_mnist), "
        "whose weights are the initial ones"
    )
    head: str | None = Field(None, description="head in place of the network's own: segformer, upernet, …")
    changes: dict[str, Any] = Field(
        default_factory=dict,
        max_length=30,
        description="further fields of the config; of a timm model, options and segformer_width",
    )
    initial_weights: Name | None = Field(
        None,
        description="checkpoint to load tensors of equal name and shape from; null: random weights",
    )
    initialisation: Literal["pytorch", "truncated_normal"] = Field(
        "pytorch", description="random weights: PyTorch's defaults, or linear layers truncated normal with std 0.02"
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        name = own_name(name)
        if not (name.startswith(TIMM) or name.endswith((".yaml", ".yml")) or name in preset_names()):
            raise ValueError(f"{name!r:.80} is unknown; {suggest(name, preset_names())}")
        return name

    @field_validator("head")
    @classmethod
    def _known_head(cls, head: str | None) -> str | None:
        if head is not None and head not in TABLES["head"]:
            raise ValueError(f"{head!r:.80} is unknown; {suggest(head, TABLES['head'])}")
        return head


class Optimiser(Section):
    """Optimizer, learning rates and gradient clipping."""

    name: str = Field("adamw", pattern="^[a-z0-9_]{1,50}$", description="a name of timm.optim.list_optimizers()")
    learning_rate: LearningRate = Field(description="peak learning rate, for the global batch size")
    weight_decay: Annotated[Number, Field(ge=0, le=10)] = Field(
        0.05, description="weight decay, not applied to norms, biases and model.no_weight_decay()"
    )
    betas: tuple[DropRate, DropRate] | None = Field(
        (0.9, 0.999), description="coefficients of Adam-like optimisers; null: the optimiser's default"
    )
    epsilon: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        1e-8, description="epsilon of Adam-like optimisers; null: the optimiser's default"
    )
    momentum: DropRate | None = Field(
        None, description="momentum of SGD-like optimisers; null: the optimiser's default"
    )
    clip_gradients: Annotated[Number, Field(gt=0, le=1e6)] | None = Field(
        None, description="gradient clipping limit; null: no clipping"
    )
    clip_mode: Literal["value", "norm"] = Field(
        "value", description="value: clip each element; norm: clip the norm of all gradients"
    )
    layer_decay: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="layer-wise decay: learning rate of a layer divided by that of the next one; null: none"
    )
    head_rate_multiple: Annotated[Number, Field(gt=0, le=1000)] = Field(
        1.0, description="learning rate of the head divided by learning_rate"
    )


class Schedule(Section):
    """Length of the training and learning rate schedule."""

    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = Field(
        None, description="passes over the training images, without the cool-down; null: see iterations"
    )
    iterations: Length | None = Field(None, description="optimizer steps; null: see epochs")
    curve: Literal["cosine", "poly", "constant"] = Field("cosine", description="decay curve of the learning rate")
    poly_power: Annotated[Number, Field(gt=0, le=10)] = Field(1.0, description="exponent of poly")
    warmup_epochs: Annotated[Number, Field(ge=0, le=100_000)] = Field(0.0, description="linear warm-up, in epochs")
    warmup_iterations: Annotated[int, Field(strict=True, ge=0, le=MAX_LENGTH)] = Field(
        0, description="linear warm-up, in iterations"
    )
    warmup_start_rate: LearningRate = Field(0.0, description="learning rate at the first step of the warm-up")
    min_rate: LearningRate = Field(0.0, description="learning rate at the end of the curve and in the cool-down")
    cooldown_epochs: Annotated[int, Field(strict=True, ge=0, le=100_000)] = Field(
        0, description="epochs at min_rate after the curve"
    )
    update: Literal["step", "epoch"] = Field(
        "step", description="whether the learning rate is updated at each step or each epoch"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give epochs or iterations, and set the other to null")
        if self.warmup_epochs and self.warmup_iterations:
            raise ValueError("give warmup_epochs or warmup_iterations, and set the other to 0")
        if self.iterations is not None and (self.warmup_epochs or self.cooldown_epochs or self.update == "epoch"):
            raise ValueError("with iterations, set warmup_epochs and cooldown_epochs to 0 and update to step")
        for unit, length in (("epochs", self.epochs), ("iterations", self.iterations)):
            warmup = getattr(self, f"warmup_{unit}")
            if length is not None and warmup > length:
                raise ValueError(
                    f"warmup_{unit} = {warmup:g} is longer than the training ({length}); lower the warm-up"
                )
        return self


class ClassificationAugmentation(Section):
    """Augmentations of images, in this order; mixup and cutmix are applied to the whole batch."""

    crop: Literal["resized", "padded", "none"] = Field(
        "none",
        description="resized: a random part, resized; padded: a shift of up to padding_px; none: the whole image",
    )
    crop_area: tuple[Share, Share] = Field((0.08, 1.0), description="smallest and largest area of a resized crop")
    crop_aspect: tuple[Factor, Factor] = Field(
        (0.75, 1.3333333333333333), description="smallest and largest width over height of a resized crop"
    )
    padding_px: Annotated[int, Field(strict=True, ge=0, le=512)] = Field(
        0, description="largest shift of a padded crop"
    )
    interpolation: Interpolation = Field(
        "bicubic", description="interpolation of resizing; random: bilinear or bicubic"
    )
    flip_probability: Share = Field(0.0, description="probability of a horizontal flip")
    auto_augment: Annotated[str, Field(pattern="^[a-zA-Z0-9_.-]{1,100}$")] | None = Field(
        None, description="augmentation policy in timm's notation; null: none"
    )
    color_jitter: Share = Field(0.0, description="strength for brightness, contrast and saturation, without a policy")
    erasing_probability: Share = Field(0.0, description="probability of erasing a random rectangle")
    erasing_mode: Literal["const", "rand", "pixel"] = Field(
        "const", description="const: filled with zeros; rand: one random colour; pixel: a random colour for each pixel"
    )
    mixup_alpha: Alpha = Field(0.0, description="parameter of the beta distribution; 0: no mixup")
    cutmix_alpha: Alpha = Field(0.0, description="parameter of the beta distribution; 0: no cutmix")
    mix_probability: Share = Field(1.0, description="probability that a batch is mixed")
    mix_switch_probability: Share = Field(0.5, description="probability of cutmix where both are on")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("crop_area", "crop_aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low:g}, {high:g}] falls; give the smaller number first")
        return self


class SegmentationAugmentation(Section):
    """Augmentations of images with masks, in this order. Crops have the size ``data.resolution_px``."""

    base_size_px: tuple[Side, Side] | None = Field(
        None, description="long and short side that an image fits into at ratio 1; null: its own size"
    )
    resize_ratio: tuple[Factor, Factor] = Field((1.0, 1.0), description="range of the random scale")
    cat_max_ratio: Annotated[Number, Field(gt=0, le=1)] = Field(
        1.0, description="largest share of one class in a crop; 1: any"
    )
    crop_tries: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        10, description="number of crops tried to meet cat_max_ratio"
    )
    flip_probability: Share = Field(0.0, description="probability of a horizontal flip")
    photometric_distortion: Switch = Field(
        False, description="brightness ± 32, contrast and saturation × 0.5 to 1.5, hue ± 18 of 180"
    )
    pad_label: Literal[255] = Field(255, description="label of padding, which no loss and no score counts")

    @field_validator("resize_ratio")
    @classmethod
    def _ordered(cls, ratio: tuple[float, float]) -> tuple[float, float]:
        if ratio[0] > ratio[1]:
            raise ValueError(f"[{ratio[0]:g}, {ratio[1]:g}] falls; give the smaller number first")
        return ratio


class Regularisation(Section):
    """Regularization, except augmentation and weight decay."""

    drop_path: DropRate = Field(0.0, description="stochastic depth of the last block, linear from 0 at the first")
    head_drop: DropRate = Field(0.0, description="dropout before the classifier")
    label_smoothing: DropRate = Field(0.0, description="probability spread over all classes")
    ema: Switch = Field(False, description="score and keep a moving average of the weights too")
    ema_decay: DropRate = Field(0.9999, description="decay of that average per step")


class SegmentationRegularisation(Regularisation):
    """The same, with the loss of the auxiliary head."""

    auxiliary_loss_weight: Annotated[Number, Field(ge=0, le=10)] = Field(
        0.4, description="weight of the loss of the auxiliary head, if there is one (upernet)"
    )


class Precision(Section):
    """Precision and memory options of a step."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number format of activations under autocast"
    )
    sync_batch_norm: Switch = Field(False, description="BatchNorm over the batches of all processes")
    gradient_checkpointing: Switch = Field(False, description="compute activations again in the backward pass")
    channels_last: Switch = Field(False, description="memory format of images and convolutions")
    compile: Switch = Field(False, description="compile each block by torch.compile")


class ClassificationEvaluation(Section):
    """Evaluation on validation images."""

    resolution_px: Size = Field((224, 224), description="height and width of a validation image")
    crop_fraction: Annotated[Number, Field(gt=0, le=1)] = Field(
        1.0, description="share of the shorter side that the centre crop keeps"
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bicubic", description="interpolation of resizing")
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] = Field(
        128, description="images in a pass; for segmentation, windows of one image (mode slide)"
    )
    every_epochs: Count = Field(1, description="epochs between evaluations; the last one is always evaluated")
    best: Literal["top1", "top5"] = Field("top1", description="score that selects the best checkpoint")


class SegmentationEvaluation(Section):
    """Evaluation on validation images at their original size, with one confusion matrix over all images."""

    mode: Literal["whole", "slide"] = Field("whole", description="one pass over the image, or sliding windows")
    base_size_px: tuple[Side, Side] | None = Field(
        None, description="long and short side that the image is resized to fit; null: its own size"
    )
    crop_px: Size | None = Field(None, description="height and width of a sliding window; null in mode whole")
    stride_px: tuple[Count, Count] | None = Field(None, description="distance between windows; null in mode whole")
    scales: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=20)] = Field(
        (1.0,), description="sizes of the image that are averaged"
    )
    flip: Switch = Field(False, description="average with the horizontally flipped image")
    batch_size: Annotated[int, Field(strict=True, ge=1, le=1024)] = Field(
        1, description="images in a pass; for segmentation, windows of one image (mode slide)"
    )
    every_iterations: Length = Field(1000, description="steps between evaluations; the last one is always evaluated")
    best: Literal["miou", "aacc", "macc"] = Field("miou", description="score that selects the best checkpoint")

    @model_validator(mode="after")
    def _windows(self) -> Self:
        slides = self.mode == "slide"
        if (self.crop_px is not None) != slides or (self.stride_px is not None) != slides:
            raise ValueError(
                "crop_px and stride_px belong to mode slide; give both there, and set both to null in mode whole"
            )
        if self.crop_px and self.stride_px and any(s > c for s, c in zip(self.stride_px, self.crop_px, strict=True)):
            raise ValueError("stride_px is larger than crop_px and would leave pixels without a window; lower it")
        return self


class Run(Section):
    """Seed, processes, checkpoints, and the loop."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = Field(
        0, description="seed of weights, order and augmentation"
    )
    workers: Annotated[int, Field(strict=True, ge=0, le=256)] = Field(
        2, description="processes that read images, for each training process; no effect on results"
    )
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = Field(
        None, description="CPU threads of a training process; null: torch's choice"
    )
    save_every_s: Annotated[Number, Field(gt=0, le=1e6)] = Field(
        600.0, description="seconds between checkpoints, in addition to those at evaluations"
    )
    keep_last: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        2, description="number of checkpoints to keep, in addition to the best"
    )
    loop: Literal["engine", "proxy"] = Field(
        "engine", description="engine: the full training; proxy: the short one of studies, which has few settings"
    )
