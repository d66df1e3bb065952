"""The blocks of a network, by name, stage, branch and number."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from hrvit_lab.config.plan import plan
from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.insight.heads import Size
from hrvit_lab.network.blocks import Block
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.places import places


class BlockPlace(NamedTuple):
    """A block of an HRViT.

    Attributes:
        name: of its module: ``"stages.2.branches.1.0"``.
        stage, branch: numbers from 0; branch 0 is the finest.
        number: of the block in its branch and stage, from 0.
        variant: of its attention.
        stride: pixels of the image for each token, down and right.
        title: text for a figure.
    """

    name: str
    stage: int
    branch: int
    number: int
    variant: str
    stride: Size
    title: str


def block_places(model: nn.Module) -> Iterator[BlockPlace]:
    """All blocks, in the order of execution.

    Raises:
        ConfigError: if the network is not an HRViT, or deployed.
    """
    if not isinstance(model, HRViT):
        raise ConfigError(f"{type(model).__name__} has no blocks of an HRViT; give a network of hrvit_lab.create_model")
    seen: Counter[tuple[int, int]] = Counter()
    for place in places(plan(model.config)):
        if place.part.kind != "block":
            continue
        if not isinstance(model.get_submodule(place.name), Block):
            raise ConfigError(
                "the network is deployed or changed, and its outputs are overwritten; look into the plain network"
            )
        assert isinstance(place.stage, int) and place.branch is not None
        number = seen[place.stage, place.branch]
        seen[place.stage, place.branch] += 1
        variant, side = place.part.inside[1].variant, model.config.strides[place.branch]
        title = f"stage {place.stage}, branch {place.branch}, block {number}"
        yield BlockPlace(place.name, place.stage, place.branch, number, variant, (side, side), title)


def find_blocks(model: nn.Module, names: Sequence[str] | None) -> list[BlockPlace]:
    """The blocks with these names, in the order of execution; all if ``names`` is None.

    Raises:
        ConfigError: for an unknown name; suggests similar ones.
    """
    known = {place.name: place for place in block_places(model)}
    if unknown := next((name for name in names or () if name not in known), None):
        raise ConfigError(f"unknown block {unknown!r:.80}; {suggest(unknown, known)}")
    return [place for name, place in known.items() if names is None or name in names]


def check_image(image_1CHW: Tensor) -> Size:
    """(height, width) of a batch of one image.

    Raises:
        ConfigError: if it is something else.
    """
    if image_1CHW.ndim != 4 or image_1CHW.shape[0] != 1:
        raise ConfigError(f"image of shape {tuple(image_1CHW.shape)}: give one image, (1, channels, height, width)")
    return image_1CHW.shape[2], image_1CHW.shape[3]


def patch_size(model: nn.Module, image: Size) -> Size:
    """Height and width in pixels of the patches of a timm model, whose first tokens stand for one patch each.

    Raises:
        ConfigError: if it has no patches, or they leave out the last rows or columns of the image.
    """
    embed: Any = getattr(model, "patch_embed", None)
    size: Any = getattr(embed, "patch_size", None)
    if size is None:
        raise ConfigError(
            f"{type(model).__name__} has no grid of patches, so its attention can't be drawn on the image; choose "
            "receptive_field, features or similarity"
        )
    patch = int(size[0]), int(size[1])
    if not getattr(embed, "dynamic_img_pad", False) and any(a % b for a, b in zip(image, patch, strict=True)):
        raise ConfigError(
            f"the patches of {type(model).__name__} have {patch[0]} × {patch[1]} pixels and leave out the last rows or "
            f"columns of an image of {image[0]} × {image[1]} pixels; choose multiples of a patch's sides"
        )
    return patch
