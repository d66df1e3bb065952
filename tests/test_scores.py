"""Scores compared with loops over pixels in exact numbers, torchmetrics, timm, and SciPy's erosion."""

import doctest
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import ndimage
from timm.utils import accuracy
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.memory import LiveTensors
from hrvit_lab.train import scores as module
from hrvit_lab.train.scores import IGNORED, BoundaryIoU, ConfusionMatrix, TopK, scores


def random_maps(size: Sequence[int], num_classes: int, seed: int = 0, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Prediction and truth that agree in half of the pixels; a part of the truth is ignored."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=size)
    guess = np.where(rng.random(size) < 0.5, truth, rng.integers(num_classes, size=size))
    truth[rng.random(size) < ignored] = IGNORED
    return torch.from_numpy(guess), torch.from_numpy(truth)


def blobs(size: tuple[int, int], num_classes: int, seed: int, ignored: float = 0.1) -> tuple[Tensor, Tensor]:
    """Label maps of connected regions with different outlines: overlapping rectangles."""
    rng = np.random.default_rng(seed)
    truth, guess = np.zeros((2, *size), dtype=np.int64)
    for label in rng.integers(num_classes, size=2 * num_classes):
        (top, left), (height, width) = rng.integers(size), rng.integers(1, 1 + max(size) // 2, 2)
        truth[top : top + height, left : left + width] = label
        top, left = max(0, top + rng.integers(-1, 2)), max(0, left + rng.integers(-1, 2))
        guess[top : top + height, left : left + width] = label
    truth[rng.random(size) < ignored] = IGNORED
    return torch.from_numpy(guess), torch.from_numpy(truth)


def naive_counts(guess: Tensor, truth: Tensor, num_classes: int) -> list[list[int]]:
    counts = [[0] * num_classes for _ in range(num_classes)]
    for g, t in zip(guess.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t != 255:
            counts[t][g] += 1
    return counts


def naive_scores(counts: list[list[int]]) -> tuple[list[Fraction | None], list[Fraction | None]]:
    """IoU and recall of every class as exact fractions; None for 0 / 0."""
    classes = range(len(counts))
    iou: list[Fraction | None] = []
    recall: list[Fraction | None] = []
    for c in classes:
        tp, fn = counts[c][c], sum(counts[c][k] for k in classes if k != c)
        fp = sum(counts[k][c] for k in classes if k != c)
        iou.append(Fraction(tp, tp + fp + fn) if tp + fp + fn else None)
        recall.append(Fraction(tp, tp + fn) if tp + fn else None)
    return iou, recall


def naive_mean(values: list[Fraction | None]) -> float:
    known = [value for value in values if value is not None]
    return float(sum(known, Fraction(0)) / len(known)) if known else math.nan


def as_floats(values: list[Fraction | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


@pytest.mark.parametrize(
    ("size", "num_classes", "chunk"),
    [((7, 5), 3, 2**20), ((2, 9, 11), 5, 7), ((64,), 2, 64), ((65,), 2, 64), ((13, 17), 1, 10), ((40, 40), 19, 999)],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_counts_and_scores_equal_a_loop_over_pixels(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], num_classes: int, chunk: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", chunk)
    guess, truth = random_maps(size, num_classes)
    matrix = ConfusionMatrix(num_classes)
    matrix.update(guess.to(dtype), truth.to(dtype))
    expected = naive_counts(guess, truth, num_classes)
    assert matrix.counts.dtype == torch.int64 and matrix.counts.tolist() == expected
    iou, recall = naive_scores(expected)
    result = scores(matrix)
    np.testing.assert_array_equal(result.per_class_iou, as_floats(iou))
    np.testing.assert_array_equal(result.per_class_recall, as_floats(recall))
    correct, total = sum(expected[c][c] for c in range(num_classes)), sum(map(sum, expected))
    assert result.n_pixels == total == int((truth != 255).sum())
    assert result.aacc == float(Fraction(correct, total))
    assert result.miou == pytest.approx(naive_mean(iou), rel=1e-15)
    assert result.macc == pytest.approx(naive_mean(recall), rel=1e-15)


@pytest.mark.parametrize("num_classes", [2, 19, 150])
def test_miou_equals_the_jaccard_index_of_torchmetrics(num_classes: int) -> None:
    matrix = ConfusionMatrix(num_classes)
    witness = MulticlassJaccardIndex(num_classes, average="macro", ignore_index=IGNORED)
    for seed in range(3):
        guess, truth = random_maps((4, 50, 60), num_classes, seed)
        matrix.update(guess, truth)
        witness.update(guess, truth)
    assert (matrix.counts.sum(1) > 0).all()
    assert scores(matrix).miou == pytest.approx(witness.compute().item(), abs=1e-6)  # its division is in float32


def test_order_and_layout_of_pixels_do_not_matter() -> None:
    guess, truth = random_maps((6, 8), 4)
    matrix, transposed = ConfusionMatrix(4), ConfusionMatrix(4)
    matrix.update(guess, truth)
    transposed.update(guess.T, truth.T)
    assert matrix.counts.equal(transposed.counts)


@pytest.mark.parametrize("pixels", [torch.empty(0, dtype=torch.int64), torch.full((4, 4), IGNORED)])
def test_a_set_without_pixels_has_no_scores(pixels: Tensor) -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(pixels, pixels)  # a prediction of 255 is no class, and it is not read at ignored pixels
    result = scores(matrix)
    assert result.n_pixels == 0
    assert all(map(math.isnan, (result.miou, result.aacc, result.macc, *result.per_class_iou)))
    boundary = BoundaryIoU(3)
    boundary.update(pixels.reshape(-1, 4), pixels.reshape(-1, 4))
    assert boundary.counts.tolist() == [[0] * 3] * 2 and math.isnan(boundary.miou)
    assert math.isnan(TopK().top1) and math.isnan(TopK().top5)


def test_classes_that_occur_on_one_side_only() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 0, 2]))  # 1 is only predicted, 2 only true, 3 neither
    result = scores(matrix)
    np.testing.assert_array_equal(result.per_class_iou, [0.5, 0.0, 0.0, math.nan])
    np.testing.assert_array_equal(result.per_class_recall, [2 / 3, math.nan, 0.0, math.nan])
    assert result.miou == pytest.approx(1 / 6, rel=1e-15) and result.macc == pytest.approx(1 / 3, rel=1e-15)


def test_counts_beyond_int32_and_beyond_the_integers_of_float64_stay_exact() -> None:
    parts = [torch.tensor([[2**53, 1], [3, 2**31]]), torch.tensor([[1, 0], [0, 2**31 + 1]])]
    matrix = ConfusionMatrix(2)
    for part in parts:
        matrix.counts += part
    matrix.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    expected = [[2**53 + 2, 1], [3, 2**32 + 2]]
    assert matrix.counts.tolist() == expected
    result = scores(matrix)
    assert result.n_pixels == sum(map(sum, expected))
    assert list(result.per_class_iou) == as_floats(naive_scores(expected)[0])


@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_of_parts_equal_the_whole(ranks: int) -> None:
    guess, truth = random_maps((101, 6, 7), 5)
    logits, labels = torch.randn(101, 7), torch.randint(7, (101,))

    def count(images: range) -> list[Tensor]:
        matrix, boundary, top = ConfusionMatrix(5), BoundaryIoU(5), TopK()
        index = list(images)
        for part in (matrix, boundary):
            part.update(guess[index], truth[index])
        top.update(logits[index], labels[index])
        return [matrix.counts, boundary.counts, top.counts]

    parts = [count(range(rank, 101, ranks)) for rank in range(ranks)]
    whole = count(range(101))
    assert all(tensor.dtype == torch.int64 and tensor.sum() > 0 for tensor in whole)
    assert all(sum(tensors[1:], tensors[0]).equal(total) for *tensors, total in zip(*parts, whole, strict=True))
    assert whole[2][2] == 101


def test_memory_of_counting_does_not_grow_with_the_image() -> None:
    peaks = []
    for pixels in (2**21, 2**23):
        labels = torch.zeros(pixels, dtype=torch.uint8)
        with LiveTensors([labels.untyped_storage()]) as live:
            ConfusionMatrix(19).update(labels, labels)
        peaks.append(live.peak_bytes - labels.nbytes)
    assert peaks[0] == peaks[1] < 64 * 2**20


def test_more_than_255_classes_are_counted_without_an_ignored_label() -> None:
    matrix = ConfusionMatrix(300, ignored=None)
    matrix.update(torch.tensor([255, 299]), torch.tensor([255, 7]))
    assert matrix.counts[255, 255] == 1 and matrix.counts[7, 299] == 1 and matrix.counts.sum() == 2


@pytest.mark.parametrize("accumulator", [ConfusionMatrix, BoundaryIoU])
@pytest.mark.parametrize(
    ("guess", "truth", "said"),
    [
        ([[0, 3]], [[0, 1]], "prediction: label 3 is out of range for 3 classes; use 0 to 2"),
        ([[0, 255]], [[0, 1]], "prediction: label 255 is out of range for 3 classes; use 0 to 2"),
        ([[0, -1]], [[0, 1]], "prediction: label -1 is out of range"),
        ([[0, 1]], [[0, 19]], "target: label 19 is out of range for 3 classes; use 0 to 2, or 255 for ignored pixels"),
        ([[0, 1]], [[-1, 2]], "target: label -1 is out of range"),
        ([[0, 1]], [[0], [1]], r"prediction has shape \(1, 2\) and target \(2, 1\); give one label for each pixel"),
        ([[0.0, 1.0]], [[0, 1]], "prediction has dtype torch.float32; give integer labels"),
        ([[0, 1]], [[True, False]], "target has dtype torch.bool; give integer labels"),
    ],
)
def test_wrong_labels_are_refused_and_nothing_is_added(
    monkeypatch: pytest.MonkeyPatch, accumulator: type[ConfusionMatrix | BoundaryIoU],
    guess: list[list[int]], truth: list[list[int]], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 1)  # the fault is in the last chunk
    counter = accumulator(3)
    with pytest.raises(ConfigError, match=said):
        counter.update(torch.tensor(guess), torch.tensor(truth))
    assert not counter.counts.any()


@pytest.mark.parametrize("accumulator", [ConfusionMatrix, BoundaryIoU])
def test_impossible_classes_are_refused(accumulator: type[ConfusionMatrix | BoundaryIoU]) -> None:
    for number in (0, -1, 100_000):
        with pytest.raises(ConfigError, match=f"num_classes = {number} is out of range; use 1 to 4096"):
            accumulator(number)
    with pytest.raises(ConfigError, match="ignored = 255 is one of the 256 classes; use another label, or None"):
        accumulator(256)
    assert accumulator(255).counts.shape[-1] == 255
    for width in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=f"width = {width} is out of range"):
            BoundaryIoU(3, width=width)
    with pytest.raises(ConfigError, match=r"target has shape \(4,\); give \(H, W\) or \(B, H, W\)"):
        BoundaryIoU(3).update(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))


def naive_boundary(labels: list[list[int]], distance: int) -> set[tuple[int, int, int]]:
    """(row, column, class) of every pixel with another class or the outside within a Chebyshev distance."""
    height, width = len(labels), len(labels[0])
    boundary = set()
    for y in range(height):
        for x in range(width):
            for v in range(y - distance, y + distance + 1):
                for u in range(x - distance, x + distance + 1):
                    outside = not (0 <= v < height and 0 <= u < width)
                    if labels[y][x] != 255 and (outside or labels[v][u] not in (labels[y][x], 255)):
                        boundary.add((y, x, labels[y][x]))
    return boundary


@pytest.mark.parametrize(
    ("size", "width", "distance"),
    [
        ((5, 4), 0.02, 1),
        ((20, 31), 0.1, 4),
        ((31, 20), 0.055, 2),
        ((17, 23), 0.26, 7),
        ((9, 9), 1.0, 13),
        ((1, 6), 0.4, 2),
    ],
)
@pytest.mark.parametrize("ignored", [0.0, 0.15])
def test_boundary_iou_equals_a_loop_over_pixels(
    size: tuple[int, int], width: float, distance: int, ignored: float
) -> None:
    boundary = BoundaryIoU(5, width)
    intersection, union = [0] * 5, [0] * 5
    for seed in range(3):
        guess, truth = blobs(size, 4, seed, ignored)  # class 4 never occurs
        boundary.update(guess, truth)
        true = naive_boundary(truth.tolist(), distance)
        guessed = naive_boundary(guess.where(truth != 255, truth).tolist(), distance)
        for c in range(5):
            intersection[c] += sum(pixel[2] == c for pixel in true & guessed)
            union[c] += sum(pixel[2] == c for pixel in true | guessed)
    assert boundary.counts.tolist() == [intersection, union]
    assert 0 < sum(intersection) < sum(union) and union[4] == 0
    iou = [Fraction(i, u) if u else None for i, u in zip(intersection, union, strict=True)]
    np.testing.assert_array_equal(boundary.per_class_iou, as_floats(iou))
    assert boundary.miou == pytest.approx(naive_mean(iou), rel=1e-15)


@pytest.mark.parametrize("size", [(60, 80), (240, 320)])
def test_boundary_regions_equal_the_pixels_removed_by_the_papers_erosions(size: tuple[int, int]) -> None:
    """The paper's definition with SciPy: every class is a mask, eroded d times with background around the image."""
    guess, truth = blobs(size, 4, seed=1, ignored=0)
    distance = round(0.02 * math.hypot(*size))
    assert distance == size[0] // 30

    def region(mask: np.ndarray) -> np.ndarray:
        return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)

    expected = []
    for c in range(4):
        true, guessed = region(truth.numpy() == c), region(guess.numpy() == c)
        expected.append([int((true & guessed).sum()), int((true | guessed).sum())])
    boundary = BoundaryIoU(4)
    boundary.update(guess[None].to(torch.uint8), truth[None])
    assert boundary.counts.T.tolist() == expected and all(0 < i < u for i, u in expected)


def test_boundary_iou_of_a_map_that_is_known() -> None:
    """A square of 4 × 4 in 8 × 8, shifted by one column, with a boundary of one pixel."""
    truth, guess = torch.zeros(2, 8, 8, dtype=torch.int64)
    truth[2:6, 2:6] = 1
    guess[2:6, 3:7] = 1
    boundary = BoundaryIoU(2)
    boundary.update(guess, truth)
    # Class 1: rings of 12 pixels, which share 3 of the top row, 3 of the bottom row, and nothing between them.
    assert boundary.counts[:, 1].tolist() == [6, 18]
    perfect = BoundaryIoU(2)
    perfect.update(truth, truth)
    assert perfect.per_class_iou == (1.0, 1.0) and perfect.counts[0, 1] == 12


def test_ignored_pixels_make_no_boundary() -> None:
    truth = torch.zeros(9, 9, dtype=torch.int64)
    truth[4, 4] = IGNORED
    guess = torch.zeros(9, 9, dtype=torch.int64)
    guess[4, 4] = 1  # an error at an ignored pixel
    boundary = BoundaryIoU(2)
    boundary.update(guess, truth)
    assert boundary.counts.tolist() == [[32, 0], [32, 0]]  # the border of the image


def test_top_k_equals_timms_accuracy() -> None:
    logits, labels = torch.randn(500, 12), torch.randint(12, (500,))
    top = TopK()
    for part in (slice(0, 7), slice(7, 400), slice(400, 500)):
        top.update(logits[part], labels[part])
    top1, top5 = accuracy(logits, labels, topk=(1, 5))
    assert top.n_seen == 500
    assert (top.top1, top.top5) == pytest.approx((top1.item(), top5.item()), rel=1e-6)
    assert 0 < top.top1 < top.top5 < 100


def test_top_k_with_ties_equals_a_stable_sort() -> None:
    logits, labels = torch.randint(4, (200, 9)).bfloat16(), torch.randint(9, (200,))
    top = TopK()
    top.update(logits, labels)
    ranks = [
        sorted(range(9), key=lambda c: (-row[c], c)).index(label)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert top.counts.tolist() == [sum(rank < 1 for rank in ranks), sum(rank < 5 for rank in ranks), 200]


def test_top_k_of_few_classes_of_constant_and_of_broken_logits() -> None:
    few = TopK()
    few.update(torch.randn(20, 3), torch.randint(3, (20,)))
    assert few.top5 == 100.0 and few.top1 < 100.0
    constant = TopK()
    constant.update(torch.zeros(10, 10), torch.arange(10))
    assert constant.counts.tolist() == [1, 5, 10]
    broken = TopK()
    broken.update(torch.full((10, 10), math.nan), torch.arange(10))
    broken.update(torch.tensor([[math.nan, 1.0], [math.nan, 1.0], [math.inf, 1.0]]), torch.tensor([0, 1, 0]))
    assert broken.counts.tolist() == [1, 2, 13]  # rank 1 behind one NaN, rank 0 of infinity


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), "target: label 3 is out of range for 3 classes; use 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "target: label -1 is out of range"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 1]), r"shape \(2, 3\) and target of shape \(3,\)"),
        (torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), r"logits of shape \(2, 3, 4, 4\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), r"torch.float32, cannot be scored; give \(B, classes\)"),
    ],
)
def test_wrong_classes_are_refused_and_nothing_is_added(logits: Tensor, labels: Tensor, said: str) -> None:
    top = TopK()
    with pytest.raises(ConfigError, match=said):
        top.update(logits, labels)
    assert not top.counts.any()


def test_docstring_examples() -> None:
    assert doctest.testmod(module).attempted >= 8 and doctest.testmod(module).failed == 0
