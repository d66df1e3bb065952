"""Back ends that run an exported file: the network is written in a format of ``hrvit-lab export`` and loaded again.

The scales of int8 are calibrated on the timed images, which does not change the latency. The accuracy on real images is
shown by ``hrvit-lab export --dtype int8``.
"""

import copy
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


def run_file(load: Workload, name: str, dtype: str) -> tuple[Callable[[], Any], float]:
    """A function that runs the exported workload, and the seconds that preparing it took.

    Args:
        name: of the format, a key of ``FORMATS``.
        dtype: number format of its products. Weights and images in bfloat16 are written and read as float32, which
            rounds nothing.
    """
    began = time.perf_counter()
    form = FORMATS[name]
    batch_size, channels, height, width = load.images_BCHW.shape
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad(), quiet():
        images_BCHW = load.images_BCHW.float().clone()  # the exporter cannot trace inference tensors
        model = load.model if load.images_BCHW.dtype == torch.float32 else copy.deepcopy(load.model).float()
        calibration = images_BCHW if dtype == "int8" else None
        request = Request(name, (height, width), batch_size, (), dtype, channels, calibration=calibration)
        path = Path(folder) / form.file
        form.write(model, request, path)
        run = form.load(path, request)
    return lambda: run(images_BCHW), time.perf_counter() - began
