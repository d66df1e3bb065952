"""Back ends with products in int8: ONNX Runtime or OpenVINO, with a graph that ONNX Runtime has quantized.

The scales are calibrated on the timed images. They do not change the latency. For the accuracy with real images, see
``hrvit-lab export --dtype int8``.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hrvit_lab.export.formats import FORMATS
from hrvit_lab.export.request import Request
from hrvit_lab.latency.workload import Workload
from hrvit_lab.network.quiet import quiet


def quantized(load: Workload, engine: str) -> tuple[Callable[[], Any], float]:
    """A function that runs the quantized workload, and the seconds that preparing it took.

    Args:
        engine: a key of ``FORMATS`` with int8.
    """
    began = time.perf_counter()
    form = FORMATS[engine]
    batch_size, channels, height, width = load.images_BCHW.shape
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad(), quiet():
        images_BCHW = load.images_BCHW.clone()  # the exporter cannot trace inference tensors
        request = Request(engine, (height, width), batch_size, dtype="int8", channels=channels, calibration=images_BCHW)
        path = Path(folder) / form.file
        form.write(load.model, request, path)
        run = form.load(path, request)
    return lambda: run(images_BCHW), time.perf_counter() - began
