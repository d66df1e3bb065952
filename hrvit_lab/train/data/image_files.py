"""Read an image file of any supported format as 8-bit RGB.

- Grey images with more than 8 bits are scaled from the range of their format: PNG and PGM from 0…65535, TIFF from its
  number of bits (12 or 16). Signed, 32-bit and floating-point images have no defined range and are an error.
- Transparent pixels are composited on white.
- Palette, CMYK, YCbCr and LAB images are converted to RGB by Pillow; colour profiles are ignored.
- The EXIF orientation is applied (torchvision's ``ImageFolder`` does not do this).
- The first frame of an animation and the first page of a multi-page file are read.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hrvit_lab.train.data.broken import BrokenSample

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".gif", ".avif",
)  # fmt: skip
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF", "AVIF")
"""Formats that Pillow may read. Some of its other formats start programs (EPS); the rest are rare."""
MAX_PIXELS = 89_478_485
"""Maximum number of pixels of an image (256 MiB as RGB; equal to Pillow's limit, which other code may change)."""

TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0


def read_image(path: Path, resolution: tuple[int, int]) -> "np.ndarray":
    """Decode one image file, scale it to cover (height, width) and keep the centre: uint8 (H, W, 3).

    Raises:
        BrokenSample: see `open_image`.
    """
    import numpy as np  # imported here, like Pillow: listing files needs neither
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(open_image(path), (resolution[1], resolution[0]), Image.Resampling.BICUBIC))


def open_image(path: Path) -> "PillowImage":
    """Decode one image file to RGB, with EXIF orientation applied and transparency on white.

    Raises:
        BrokenSample: if it is missing, broken, not an image, of unknown range, or larger than ``MAX_PIXELS``; names the
            file.
    """
    try:
        with path.open("rb") as file:
            return decode_image(file, str(path))
    except OSError as error:
        raise BrokenSample(f"{path} cannot be decoded ({error.strerror or error}); repair or remove it") from error


def decode_image(file: BinaryIO, name: str) -> "PillowImage":
    """As `open_image`, from an open file; ``name`` is for messages."""
    from PIL import Image

    try:
        return _decode(file, name)
    except BrokenSample:
        raise
    except Exception as error:  # for a broken file, Pillow can raise almost any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        raise BrokenSample(f"{name} cannot be decoded ({reason}); repair or remove it") from error


def _decode(file: BinaryIO, name: str) -> "PillowImage":
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example on damaged EXIF data, which does not affect the image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}"
                raise BrokenSample(f"{name} has {size}; scale it down, or remove it")
            black, white = _grey_range(image, name)
            upright = ImageOps.exif_transpose(image)
    if (black, white) != (0, 255):
        upright = _eight_bits(upright, black, white)
    return _on_white(upright)


def _grey_range(image: "PillowImage", name: str) -> tuple[int, int]:
    """The values of black and white.

    Raises:
        BrokenSample: if they are unknown.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise BrokenSample(
            f"{name} contains {kind} (mode {image.mode}) of unknown range; save it as 8-bit or 16-bit unsigned "
            "integers, or remove it"
        )
    if not image.mode.startswith("I"):
        return 0, 255
    if image.format != "TIFF":
        return 0, 65_535  # also for PGM: Pillow scales the declared maximum to this
    tags = image.tag_v2  # type: ignore[attr-defined]
    most = 2 ** tags[TIFF_BITS_PER_SAMPLE][0] - 1
    return (most, 0) if tags.get(TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO) == TIFF_WHITE_IS_ZERO else (0, most)


def _eight_bits(image: "PillowImage", black: int, white: int) -> "PillowImage":
    """Convert a grey image with more bits to mode L, or to LA if one grey value is declared transparent."""
    import numpy as np
    from PIL import Image

    levels = np.asarray(image).astype(np.float32)
    grey = Image.fromarray(np.rint((levels - black) * (255 / (white - black))).astype(np.uint8))
    if (hidden := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == hidden, 0, 255).astype(np.uint8)))
    return grey


def _on_white(image: "PillowImage") -> "PillowImage":
    """Convert an 8-bit image to RGB; transparent pixels are composited on white."""
    from PIL import Image

    if image.mode == "La":  # premultiplied grey, which Pillow converts to LA only
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
