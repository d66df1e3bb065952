"""Conversion of one image file to RGB, compared with numpy, 8-bit versions, and files written byte by byte."""

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from hrvit_lab.config import ConfigError
from hrvit_lab.train.data.image_files import FORMATS, read_image

GREY = np.random.default_rng(0).integers(0, 256, (9, 12)).astype(np.uint8)
GREY[0, :2] = 0, 255
COLOUR = np.random.default_rng(1).integers(0, 256, (9, 12, 3)).astype(np.uint8)


def read(path: Path, size: tuple[int, int] = (9, 12)) -> np.ndarray:
    """The file at its original size, (H, W, 3), as signed numbers."""
    return read_image(path, size).astype(int)


def write_tiff(path: Path, samples: bytes, bits: int, channels: int = 1, order: str = "<", **tags: int) -> Path:
    """A TIFF of one strip, from the format's description.

    Args:
        order: of bytes, ``<`` or ``>``.
        tags: photometric, sample_format, extra_samples.
    """
    values = {
        256: [12], 257: [9], 258: [bits] * channels, 259: [1], 262: [tags.get("photometric", 1)], 273: [8],
        277: [channels], 278: [9], 279: [len(samples)], 339: [tags.get("sample_format", 1)] * channels,
    }  # fmt: skip
    if "extra_samples" in tags:
        values[338] = [tags["extra_samples"]]
    beyond = 8 + len(samples) + 2 + 12 * len(values) + 4  # offset of values of more than four bytes
    entries, far = b"", b""
    for tag, numbers in sorted(values.items()):
        body = struct.pack(f"{order}{len(numbers)}H", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers))
        if len(body) <= 4:
            entries += body.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", beyond + len(far))
            far += body
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(samples))
    path.write_bytes(start + samples + struct.pack(f"{order}H", len(values)) + entries + bytes(4) + far)
    return path


def write_png(
    path: Path,
    rows: np.ndarray,
    depth: int,
    colour: int,
    key: tuple[int, ...] = (),
    *,
    width: int = 12,
    height: int = 9,
) -> Path:
    """A PNG, from the format's description.

    Args:
        rows: what is stored, big-endian, an image's row in each.
        key: the transparent colour, for a tRNS chunk.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    chunks = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def twelve_bits(values: np.ndarray) -> bytes:
    """Two numbers in three bytes, row by row."""
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())


def write_pgm(path: Path, values: np.ndarray, most: int, *, plain: bool = False) -> Path:
    header = f"P{2 if plain else 5}\n12 9\n{most}\n".encode()
    path.write_bytes(
        header + (" ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes())
    )
    return path


# -- more than eight bits --------------------------------------------------------------------------

DEEP: dict[str, tuple[int, Callable[[Path, np.ndarray], Path]]] = {
    "png": (65535, lambda f, v: write_png(f / "a.png", v.astype(">u2"), 16, 0)),
    "pgm": (65535, lambda f, v: write_pgm(f / "a.pgm", v, 65535)),
    "pgm, 12 bits": (4095, lambda f, v: write_pgm(f / "a.pgm", v, 4095)),
    "plain pgm": (65535, lambda f, v: write_pgm(f / "a.pgm", v, 65535, plain=True)),
    "tiff": (65535, lambda f, v: write_tiff(f / "a.tif", v.astype("<u2").tobytes(), 16)),
    "tiff, big-endian": (65535, lambda f, v: write_tiff(f / "a.tif", v.astype(">u2").tobytes(), 16, order=">")),
    "tiff, 12 bits": (4095, lambda f, v: write_tiff(f / "a.tif", twelve_bits(v), 12)),
    "tiff, 0 is white": (
        65535,
        lambda f, v: write_tiff(f / "a.tif", (65535 - v).astype("<u2").tobytes(), 16, photometric=0),
    ),
}
"""The value of white, and a writer of (9, 12) grey levels."""


@pytest.mark.parametrize("kind", DEEP)
def test_a_16_bit_grey_image_equals_its_8_bit_version(tmp_path: Path, kind: str) -> None:
    white, write = DEEP[kind]
    image = read(write(tmp_path, np.rint(GREY.astype(float) * white / 255).astype(int)))
    assert (image == GREY[..., None]).all()


@pytest.mark.parametrize("kind", DEEP)
def test_any_16_bit_grey_value_is_rounded_to_the_nearest_level(tmp_path: Path, kind: str) -> None:
    white, write = DEEP[kind]
    levels = np.random.default_rng(2).integers(0, white + 1, GREY.shape)
    error = read(write(tmp_path, levels))[..., 0] - levels * 255 / white
    assert np.abs(error).max() <= 0.5 + 255 / 65535  # a PGM's declared maximum is scaled before


def test_16_bit_colours_equal_their_8_bit_version(tmp_path: Path) -> None:
    deep = COLOUR.astype(int) * 257
    paths = [write_png(tmp_path / "a.png", deep.astype(">u2").reshape(9, 36), 16, 2, width=12)]
    for order in "<>":
        samples = deep.astype(f"{order}u2").tobytes()
        paths.append(write_tiff(tmp_path / f"{ord(order)}.tif", samples, 16, 3, order, photometric=2))
    for path in paths:
        assert (read(path) == COLOUR).all()


@pytest.mark.parametrize(
    ("name", "mode"), [("int32.tif", "I"), ("float.tif", "F"), ("float.pfm", "F"), ("signed.tif", "I")]
)
def test_images_without_a_known_range_are_refused(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / name
    if name == "signed.tif":
        write_tiff(path, GREY.astype("<i2").tobytes(), 16, sample_format=2)
    else:
        Image.fromarray(GREY.astype(np.int32 if mode == "I" else np.float32)).save(path)
    with pytest.raises(
        ConfigError, match=rf"{name} contains .*\(mode {mode}\).*; save it as 8-bit or 16-bit"
    ) as caught:
        read(path)
    assert "\n" not in str(caught.value)


# -- other ways to store a colour ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """An image of eight saturated colours, or black and white, is nearly unchanged after conversion from each mode."""
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
    if mode in ("1", "L", "LA"):
        corners = np.repeat(corners[:, :1], 3, axis=1)
    if mode == "LAB":  # saturated colours are at the limits of its eight bits
        corners = corners // 4 + 96
    picture = np.repeat(corners[None], 8, axis=0).repeat(4, axis=1)
    image = Image.fromarray(picture)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")  # type: ignore[assignment]
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "LAB") else "a.png")
    image.save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    assert np.abs(read(path, (8, 32)) - picture).max() <= 3


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((9, 12), level, np.uint8)) for level in (40, 200, 250)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif", "a.avif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / name) as image:
            assert getattr(image, "n_frames", 1) == 3
        assert np.abs(read(tmp_path / name) - 40).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_by_all_exif_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The eight orientations of the EXIF standard: the sides of the upright image at which row 0 and column 0 of the
    stored one are."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: upright[:, ::-1].transpose(1, 0, 2), 7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright[::-1].transpose(1, 0, 2),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {} if suffix in ("png", "tif") else {"quality": 95}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    ours = read(path, (32, 48))
    for y, x in ((7, 11), (7, 36), (24, 11), (24, 36)):  # far from the borders between colours
        assert np.abs(ours[y, x] - upright[y, x]).max() <= 12


def test_16_bit_images_are_rotated_by_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(GREY[::-1, ::-1].astype(np.uint16) * 257).save(tmp_path / "a.png", exif=exif)
    assert (read(tmp_path / "a.png") == GREY[..., None]).all()


@pytest.mark.parametrize(
    "damaged", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_data_are_ignored(tmp_path: Path, damaged: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about the invalid data that it is told to write
        Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=damaged, quality=100, subsampling=0)
    assert np.abs(read(tmp_path / "a.jpg") - COLOUR).max() <= 12


# -- transparent pixels ----------------------------------------------------------------------------

ALPHA = np.random.default_rng(3).integers(0, 256, GREY.shape).astype(np.uint8)
ALPHA[0, :2] = 0, 255


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "avif"])
def test_transparent_pixels_are_composited_on_white(tmp_path: Path, suffix: str) -> None:
    stored = np.dstack([COLOUR, ALPHA])
    options = {"webp": {"lossless": True, "exact": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", **options.get(suffix, {}))  # type: ignore[arg-type]
    assert np.abs(read(tmp_path / f"a.{suffix}") - on_white(COLOUR, ALPHA)).max() <= (4 if suffix == "avif" else 1)


@pytest.mark.parametrize("extra", [1, 2])
def test_grey_with_alpha_is_composited_on_white(tmp_path: Path, extra: int) -> None:
    """In a TIFF with extra samples of kind 1, grey is already multiplied by alpha."""
    grey = GREY if extra == 2 else (GREY.astype(int) * ALPHA // 255).astype(np.uint8)
    path = write_tiff(tmp_path / "a.tif", np.dstack([grey, ALPHA]).tobytes(), 8, 2, extra_samples=extra)
    seen = ALPHA > 16  # below it, dividing by alpha is coarse
    assert np.abs(read(path)[..., 0] - on_white(GREY[..., None], ALPHA)[..., 0])[seen].max() <= 2
    assert (read(path)[ALPHA == 0] == 255).all()


@pytest.mark.parametrize(
    ("depth", "colour", "key"), [(1, 0, (1,)), (8, 0, (100,)), (16, 0, (25_700,)), (8, 2, (255, 0, 0))]
)
def test_a_transparent_colour_is_white(tmp_path: Path, depth: int, colour: int, key: tuple[int, ...]) -> None:
    """The left 4 of 8 columns have the transparent colour; the others are black."""
    values = np.zeros((9, 8, len(key)), np.int64)
    values[:, :4] = key
    rows = np.packbits(values[..., 0].astype(np.uint8), axis=1) if depth == 1 else values
    path = write_png(
        tmp_path / "a.png", rows.astype(f">u{max(depth, 8) // 8}").reshape(9, -1), depth, colour, key, width=8
    )
    image = read(path, (9, 8))
    assert (image[:, :4] == 255).all() and (image[:, 4:] == 0).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_entry_of_a_palette_is_white(tmp_path: Path, suffix: str) -> None:
    indices = np.tile(np.array([0, 1, 2], np.uint8), (9, 4))
    image = Image.fromarray(indices)
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    assert read(tmp_path / f"a.{suffix}")[0, :3].tolist() == [[200, 0, 0], [255, 255, 255], [0, 0, 200]]


def test_opaque_images_are_unchanged(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOUR, np.full_like(ALPHA, 255)])).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == COLOUR).all()


# -- files that are not what they should be --------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_reported_in_one_sentence(tmp_path: Path, format_: str, share: float) -> None:
    path = tmp_path / "cut"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)).save(path, format_)
    read_image(path, (8, 8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ConfigError, match=r"cut cannot be decoded \(.+\); repair or remove it") as caught:
        read_image(path, (8, 8))
    assert "\n" not in str(caught.value) and "object at" not in str(caught.value)


def test_images_with_too_many_pixels_are_refused_for_any_limit_of_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs lift that limit for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = write_png(tmp_path / "a.png", np.zeros((0, 1), np.uint8), 8, 0, width=30_000, height=30_000)
    with pytest.raises(ConfigError, match=r"a\.png has 30000×30000 pixels, more than 89,478,485; scale it down"):
        read_image(path, (8, 8))
