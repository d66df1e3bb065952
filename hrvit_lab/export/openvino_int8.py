"""int8 for ``openvino``: post-training static quantization by NNCF.

Weights of convolutions and matrix products are int8 with one scale per output channel. Their inputs, and those of the
sums between them, have 256 levels that are symmetric about zero, with one scale per tensor, from the largest value in a
batch of calibration images, of which the mean is taken. Biases are corrected by the mean error on these images.
"""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

from torch import Tensor

from hrvit_lab.export.int8 import whole_batches

PACKAGES = ("nncf",)
NO_TELEMETRY = "NNCF_CI"
"""An environment variable; NNCF sends no statistics about its use if it is set."""


def quantized(model: Any, images_BCHW: Tensor, batch_size: int) -> Any:
    """A quantized copy of an OpenVINO model.

    Args:
        images_BCHW: calibration images, as the network takes them.
        batch_size: images per call. Images that do not fill a batch are left out.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """
    batches = [batch_BCHW.numpy() for batch_BCHW in whole_batches(images_BCHW, batch_size)]
    with alone():
        nncf = import_module("nncf")
        return nncf.quantize(
            model, nncf.Dataset(batches), preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(batches)
        )


@contextmanager
def alone() -> Iterator[None]:
    """NNCF shows no progress, sends nothing, and does not change the loggers of the process."""
    before, loggers = os.environ.get(NO_TELEMETRY), logging.getLoggerClass()
    os.environ[NO_TELEMETRY] = "1"
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.setLoggerClass(loggers)
        if before is None:
            del os.environ[NO_TELEMETRY]
        else:
            os.environ[NO_TELEMETRY] = before
