"""int8 for ``onnx``: post-training static quantization by ONNX Runtime.

Weights are int8 with one scale per output channel. Inputs and outputs of products have 256 levels, with one scale per
tensor, from the mean of the smallest values of all calibration batches to the mean of the largest ones. The extremes of
all batches leave fewer levels for common values: `hrvit_nano.composites` lost 1.71 points of mIoU with them, and 0.25
with the means. The graph holds pairs of quantize and dequantize operators (QDQ), which ONNX Runtime fuses into int8
products. Everything else, biases too, stays float32.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from torch import Tensor

from hrvit_lab.errors import ConfigError

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators that are quantized."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
RANGES = "mean over batches"
"""How the range of a tensor is chosen, for results that depend on it."""


def quantize(
    source: Path,
    path: Path,
    entry: str,
    images_BCHW: Tensor,
    batch_size: int,
    *,
    nodes: Sequence[str] = (),
    ranges: Path | None = None,
) -> None:
    """Write a quantized copy of an ONNX file.

    Args:
        source: the file in float32.
        path: of the copy.
        entry: name of the graph's input.
        images_BCHW: calibration images, as the network takes them.
        batch_size: images per call of the graph. Images that do not fill a batch are left out.
        nodes: names of the operators to quantize; none: all of ``PRODUCTS``.
        ranges: a file for the calibrated ranges of all products. It is read if it is there, and written otherwise.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """
    quantization = import_module("onnxruntime.quantization")
    batches = whole_batches(images_BCHW, batch_size)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        """One batch after the other, as ONNX Runtime asks for them."""

        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.batches, None)
            return None if batch is None else {entry: batch.numpy()}

    with temporary_files_in(path.parent):
        quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=list(nodes),
            calibration_cache_path=ranges,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            # Runtimes quantize biases themselves; in the file they would need a scale per channel too. With all outputs
            # in memory, ONNX Runtime's moving average is the mean over batches.
            extra_options={"WeightSymmetric": True, "QuantizeBias": False, "CalibMovingAverage": True},
        )


def whole_batches(images_BCHW: Tensor, batch_size: int) -> list[Tensor]:
    """Batches of calibration images. Images that do not fill one are left out.

    Raises:
        ConfigError: if there are fewer images than one batch.
    """
    if len(images_BCHW) < batch_size:
        raise ConfigError(
            f"calibration needs at least one batch of {batch_size} images, but --data has {len(images_BCHW)}; "
            "give more images or a smaller --batch-size"
        )
    return [batch for batch in images_BCHW.split(batch_size) if len(batch) == batch_size]


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Temporary files are in ``folder`` meanwhile. ONNX Runtime writes copies of a network to the system's folder,
    which can be small."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
