"""Inference in windows, scales and flips, compared with loops over pixels in plain Python."""

import doctest
import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hrvit_lab import create_model
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.memory import LiveTensors
from hrvit_lab.train import inference
from hrvit_lab.train.inference import InferenceOptions, predict, slide, whole, window_starts

Maps = list[list[list[float]]]  # channel, row, column
CLASSES, CHANNELS = 3, 2
WHOLE = InferenceOptions()
WEIGHTS = [[[[(7 * c + 5 * k + 3 * i + j) % 9 - 4 for j in range(3)] for i in range(3)] for k in range(CHANNELS)]
           for c in range(CLASSES)]  # fmt: skip


class Net(nn.Module):
    """A padded 3 × 3 convolution with integer weights: its output at a pixel depends on the border of the window."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CLASSES, 3, stride, 1, bias=False)
        self.conv.weight.data = torch.tensor(WEIGHTS, dtype=torch.float32)
        self.batches: list[int] = []

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.batches.append(len(x_BCHW))
        return self.conv(x_BCHW)


def naive_conv(image: Maps, stride: int) -> Maps:
    height, width = len(image[0]), len(image[0][0])
    return [
        [
            [
                sum(
                    (
                        WEIGHTS[c][k][i][j] * image[k][y + i - 1][x + j - 1]
                        for k in range(CHANNELS)
                        for i in range(3)
                        for j in range(3)
                        if 0 <= y + i - 1 < height and 0 <= x + j - 1 < width
                    ),
                    0.0,
                )
                for x in range(0, width, stride)
            ]
            for y in range(0, height, stride)
        ]
        for c in range(CLASSES)
    ]


def naive_resize(maps: Maps, height: int, width: int) -> Maps:
    """Bilinear with half-pixel centres, the border repeated."""

    def taps(index: int, old: int, new: int) -> tuple[int, int, float]:
        place = max((index + 0.5) * old / new - 0.5, 0.0)
        low = min(math.floor(place), old - 1)
        return low, min(low + 1, old - 1), place - low

    resized = []
    for plane in maps:
        rows = []
        for y in range(height):
            y0, y1, v = taps(y, len(plane), height)
            row = []
            for x in range(width):
                x0, x1, u = taps(x, len(plane[0]), width)
                upper = (1 - u) * plane[y0][x0] + u * plane[y0][x1]
                lower = (1 - u) * plane[y1][x0] + u * plane[y1][x1]
                row.append((1 - v) * upper + v * lower)
            rows.append(row)
        resized.append(rows)
    return resized


def naive_starts(size: int, crop: int, stride: int) -> list[int]:
    """Windows one stride apart until one reaches the border; that one is moved back to end there."""
    starts, place = [], 0
    while place + crop < size:
        starts.append(place)
        place += stride
    return [*starts, max(size - crop, 0)]


def naive_slide(image: Maps, crop: tuple[int, int], stride: tuple[int, int], net_stride: int) -> Maps:
    height, width = len(image[0]), len(image[0][0])
    total = [[[0.0] * width for _ in range(height)] for _ in range(CLASSES)]
    covered = [[0] * width for _ in range(height)]
    for top, left in product(naive_starts(height, crop[0], stride[0]), naive_starts(width, crop[1], stride[1])):
        rows, columns = range(height)[top : top + crop[0]], range(width)[left : left + crop[1]]
        window = [[[plane[y][x] for x in columns] for y in rows] for plane in image]
        logits = naive_resize(naive_conv(window, net_stride), len(rows), len(columns))
        for y, x in product(rows, columns):
            covered[y][x] += 1
            for c in range(CLASSES):
                total[c][y][x] += logits[c][y - top][x - left]
    return [[[total[c][y][x] / covered[y][x] for x in range(width)] for y in range(height)] for c in range(CLASSES)]


def mirrored(maps: Maps) -> Maps:
    return [[row[::-1] for row in plane] for plane in maps]


def naive_predict(image: Maps, original: tuple[int, int], options: InferenceOptions, net_stride: int) -> Maps:
    views = []
    for scale in options.scales:
        height, width = (int(side * scale + 0.5) for side in (len(image[0]), len(image[0][0])))
        for flip in (False, True) if options.flip else (False,):
            view = naive_resize(image, height, width)
            view = mirrored(view) if flip else view
            crop, stride = options.crop or (height, width), options.stride or (1, 1)
            logits = naive_resize(naive_slide(view, crop, stride, net_stride), *original)
            views.append(mirrored(logits) if flip else logits)
    if len(views) == 1:
        return views[0]
    mean = [[[0.0] * original[1] for _ in range(original[0])] for _ in range(CLASSES)]
    for view in views:
        for y, x in product(range(original[0]), range(original[1])):
            powers = [math.exp(view[c][y][x]) for c in range(CLASSES)]
            for c in range(CLASSES):
                mean[c][y][x] += powers[c] / sum(powers) / len(views)
    return mean


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    """Integers, so that sums in float32 are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (1, CHANNELS, height, width), generator=generator).float()


@pytest.mark.parametrize(
    ("size", "crop", "stride"),
    [
        ((5, 6), (8, 8), (6, 6)),  # below the crop
        ((5, 13), (8, 8), (6, 6)),  # below it on one side
        ((8, 8), (8, 8), (6, 6)),  # at it
        ((8, 9), (8, 8), (6, 6)),  # one column beyond it
        ((14, 20), (8, 8), (6, 6)),  # strides fit exactly
        ((15, 19), (8, 8), (6, 6)),  # they don't
        ((11, 17), (4, 8), (3, 5)),  # other windows each way
        ((16, 8), (8, 8), (8, 8)),  # no overlap
        ((13, 10), (8, 4), (2, 1)),  # many windows on a pixel, 3 among others
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("net_stride", [1, 2])
def test_sliding_windows_equal_a_loop_over_pixels(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int], batch_size: int, net_stride: int
) -> None:
    image, net = random_image(*size), Net(net_stride).eval()
    expected = torch.tensor([naive_slide(image[0].tolist(), crop, stride, net_stride)])
    logits = slide(net, image, crop, stride, batch_size)
    assert logits.shape == (1, CLASSES, *size) and logits.dtype == torch.float32
    odd = net_stride == 2 and any(min(s, c) % 2 for s, c in zip(size, crop, strict=True))
    if odd:  # resized by a factor that is no power of two: equal up to float32's rounding
        assert torch.allclose(logits, expected, rtol=0, atol=1e-4)
        logits = slide(net.double(), image.double(), crop, stride, batch_size)
        expected = torch.tensor([naive_slide(image[0].tolist(), crop, stride, net_stride)], dtype=torch.float64)
        assert torch.allclose(logits, expected, rtol=0, atol=1e-12)
    else:
        assert logits.equal(expected)
    assert predict(net, image.to(logits), size, InferenceOptions(crop, stride, batch_size=batch_size)).equal(logits)
    windows = len(naive_starts(size[0], crop[0], stride[0])) * len(naive_starts(size[1], crop[1], stride[1]))
    assert max(net.batches) == min(batch_size, windows)


def test_overlapping_windows_disagree_and_are_averaged() -> None:
    """Zero padding makes the outputs of overlapping windows differ, so the result differs from that of the whole
    image."""
    image, net = random_image(8, 14), Net().eval()
    sliding, at_once = slide(net, image, (8, 8), (8, 6)), whole(net, image)
    differs = (sliding != at_once).any(1)[0].any(0).nonzero().flatten().tolist()
    assert differs == [6, 7]  # the last columns of the first window and the first of the second
    first, second = whole(net, image[..., :8]), whole(net, image[..., 6:])
    assert sliding[..., 6:8].equal((first[..., 6:8] + second[..., :2]) / 2)


@given(size=st.integers(1, 300), crop=st.integers(1, 200), data=st.data())
def test_windows_cover_every_pixel(size: int, crop: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, crop))
    starts = window_starts(size, crop, stride)
    assert starts == naive_starts(size, crop, stride)
    assert {place for start in starts for place in range(start, start + min(crop, size))} == set(range(size))
    assert len(starts) == max(size - crop + stride - 1, 0) // stride + 1 == len(set(starts))


@pytest.mark.parametrize("original", [(8, 12), (16, 24), (32, 12), (4, 6)])
@pytest.mark.parametrize("net_stride", [1, 2])
def test_whole_inference_at_the_original_size_equals_a_loop_over_pixels(
    original: tuple[int, int], net_stride: int
) -> None:
    image, net = random_image(8, 12), Net(net_stride).eval()
    logits = predict(net, image, original, WHOLE)
    expected = torch.tensor([naive_predict(image[0].tolist(), original, WHOLE, net_stride)])
    assert logits.shape == (1, CLASSES, *original)
    assert logits.equal(expected)


@pytest.mark.parametrize(
    ("size", "original", "options"),
    [
        ((9, 13), (9, 13), InferenceOptions(flip=True)),
        ((9, 13), (17, 11), InferenceOptions(flip=True)),
        ((8, 10), (12, 15), InferenceOptions(scales=(0.75,))),
        ((8, 10), (12, 15), InferenceOptions(scales=(0.5, 0.75, 1.0, 1.25), flip=True)),
        ((8, 10), (8, 10), InferenceOptions((6, 6), (4, 4), scales=(0.5, 1.0, 1.75))),
        ((7, 11), (9, 9), InferenceOptions((6, 8), (5, 3), scales=(0.5, 1.5), flip=True, batch_size=3)),
    ],
)
@pytest.mark.parametrize("net_stride", [1, 2])
def test_scales_and_flips_equal_a_loop_over_pixels(
    size: tuple[int, int], original: tuple[int, int], options: InferenceOptions, net_stride: int
) -> None:
    image, net = random_image(*size).double() / 8, Net(net_stride).double().eval()
    result = predict(net, image, original, options)
    expected = torch.tensor([naive_predict(image[0].tolist(), original, options, net_stride)], dtype=torch.float64)
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)
    assert result.argmax(1).equal(expected.argmax(1)) and len(result.argmax(1).unique()) == CLASSES
    if options.flip or len(options.scales) > 1:
        assert torch.allclose(result.sum(1), torch.ones(1, *original, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_flipped_image_has_the_flipped_prediction() -> None:
    image, net = random_image(8, 9).double(), Net().double().eval()
    options = InferenceOptions((4, 6), (4, 3), scales=(1.0, 2.0), flip=True)
    straight, mirror = (predict(net, x, (8, 9), options) for x in (image, image.flip(3)))
    assert torch.allclose(straight, mirror.flip(3), rtol=0, atol=1e-12)
    once = predict(net, image, (8, 9), WHOLE).softmax(1)
    assert not torch.allclose(straight, once, atol=1e-3)  # because the filter is not symmetric


def test_our_network_runs_on_whole_images_and_in_windows() -> None:
    model = create_model("hrvit_nano", head="segformer", num_classes=5).eval()
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        expected = F.interpolate(model(image), (96, 128), mode="bilinear", align_corners=False)
    assert predict(model, image, (96, 128), WHOLE).equal(expected)
    expected = F.interpolate(expected, (70, 101), mode="bilinear", align_corners=False)
    assert predict(model, image, (70, 101), WHOLE).equal(expected)
    one, four = (slide(model, image, (64, 64), (48, 48), batch_size) for batch_size in (1, 4))
    assert torch.allclose(one, four, atol=1e-5) and not one.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        low = slide(model, image, (64, 64), (48, 48), 4)
    assert low.dtype == torch.float32 and torch.allclose(low, four, atol=0.05 * four.abs().max().item())


def test_memory_does_not_grow_with_views_and_windows() -> None:
    net, image, original = nn.Conv2d(CHANNELS, 8, 1).eval(), random_image(16, 16), (64, 64)
    result_bytes = 4 * 8 * 64 * 64
    for scales in ((1.0,) * 2, (1.0,) * 9):
        with LiveTensors([]) as live:
            predict(net, image, original, InferenceOptions((4, 4), (2, 2), scales, flip=True))
        assert live.peak_bytes < 3.3 * result_bytes, len(scales)
    wide = torch.zeros(1, CHANNELS, 16, 1024)
    with LiveTensors([]) as live:
        slide(net, wide, (16, 16), (8, 8), batch_size=4)
    logits_bytes = 4 * 8 * 16 * 1024
    assert logits_bytes <= live.peak_bytes < 1.5 * logits_bytes  # the logits of all 127 windows at once: 3 times


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InferenceOptions(crop=(8, 8)), r"crop = \(8, 8\) and stride = None belong together"),
        (lambda: InferenceOptions(stride=(8, 8)), "belong together; give both or none"),
        (lambda: InferenceOptions((8, 8), (8, 9)), r"stride = \(8, 9\) is out of range; .* leave no gaps"),
        (lambda: InferenceOptions((8, 0), (8, 0)), "is out of range; use strides of at least 1"),
        (lambda: InferenceOptions((8, 8), (0, 8)), "is out of range; use strides of at least 1"),
        (lambda: InferenceOptions(scales=()), r"scales = \(\) is out of range; use factors above 0, at most 16"),
        (lambda: InferenceOptions(scales=(1.0, -0.5)), "use factors above 0, at most 16"),
        (lambda: InferenceOptions(scales=(math.nan,)), "use factors above 0, at most 16"),
        (lambda: InferenceOptions(scales=(1e9,)), "use factors above 0, at most 16"),
        (lambda: InferenceOptions(batch_size=0), "batch_size = 0 is out of range; use at least 1"),
        (lambda: slide(Net(), random_image(4, 4), (2, 2), (3, 3)), "leave no gaps"),
        (lambda: slide(Net(), random_image(4, 4)[0], (2, 2), (2, 2)), r"shape \(2, 4, 4\); give one image"),
        (lambda: slide(Net(), random_image(4, 4), (2, 2), (2, 2), 0), "batch_size = 0 is out of range"),
        (lambda: predict(Net(), random_image(4, 4), (4, 4), WHOLE), "training mode, .*; call model.eval"),
        (lambda: predict(Net().eval(), random_image(4, 4)[0], (4, 4), WHOLE), r"shape \(2, 4, 4\); give one image"),
        (lambda: predict(Net().eval(), random_image(4, 4).expand(2, -1, -1, -1), (4, 4), WHOLE), "give one image"),
        (lambda: predict(Net().eval(), random_image(4, 4), (0, 4), WHOLE), r"original_size = \(0, 4\) is out of range"),
        (lambda: predict(nn.Flatten().eval(), random_image(4, 4), (4, 4), WHOLE), r"shape \(1, 32\), and segmentation"),
        (lambda: whole(lambda x: (x, x), random_image(4, 4)), "returns tuple, .* head='segformer' or 'upernet'"),  # type: ignore[arg-type, return-value]
    ],
)  # fmt: skip
def test_invalid_requests_are_reported_in_one_sentence(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_docstring_examples() -> None:
    assert doctest.testmod(inference).attempted >= 3 and doctest.testmod(inference).failed == 0
