"""The table of formats, and the checks of a request.

To add a format, write a module with ``write``, ``load`` and ``lines``, and add a line to ``FORMATS``.
"""

from importlib.util import find_spec

from torch import nn

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.export import int8, onnx_graph, openvino_int8, openvino_ir, pt2, pt2_int8, torchscript
from hrvit_lab.export.format import Format
from hrvit_lab.export.request import FREE_AXES, Request
from hrvit_lab.network.model import HRViT

FORMATS: dict[str, Format] = {
    "pt2": Format(
        "PyTorch (torch.export)", "model.pt2", pt2.write, pt2.load, pt2.lines,
        dtypes=("float32", "bfloat16", "float16", "int8"), quantizer=pt2_int8.PACKAGES,
    ),
    "onnx": Format(
        "ONNX Runtime", "model.onnx", onnx_graph.write, onnx_graph.load, onnx_graph.lines,
        dtypes=("float32", "float16", "int8"), packages=int8.PACKAGES, quantizer=int8.PACKAGES,
    ),
    "openvino": Format(
        "OpenVINO", "model.xml", openvino_ir.write, openvino_ir.load, openvino_ir.lines,
        dtypes=("float32", "bfloat16", "float16", "int8"), packages=("openvino",), quantizer=openvino_int8.PACKAGES,
        beside=("model.bin",),
    ),
    "torchscript": Format(
        "PyTorch (TorchScript)", "model.pt", torchscript.write, torchscript.load, torchscript.lines, free=("batch",)
    ),
}  # fmt: skip
"""All formats by the name that ``--format`` takes."""


def find_format(name: str) -> Format:
    """The format called ``name``.

    Raises:
        ConfigError: if there is none, or a required package is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown; {suggest(name, FORMATS)}")
    check_installed(FORMATS[name].packages, f"format {name}")
    return FORMATS[name]


def check_installed(packages: tuple[str, ...], what: str) -> None:
    """Check that the packages that ``what`` requires are installed.

    Raises:
        ConfigError: naming those that are not.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}; run: pip install {' '.join(missing)}")


def check_request(request: Request, model: nn.Module, name: str, *, images_follow: bool = False) -> None:
    """Check that a format, a network and the settings fit each other.

    Args:
        model: the network, called ``name``.
        images_follow: the images for calibration will be read later.
    Raises:
        ConfigError: naming the setting, its value and the remedy.
    """
    form = find_format(request.format)
    if request.dtype not in form.dtypes:
        raise ConfigError(
            f"format {request.format} does not support {request.dtype}; use --dtype {' or '.join(form.dtypes)}, or "
            "another --format"
        )
    if request.dtype == "int8":
        check_installed(form.quantizer, f"format {request.format} in int8")
        if request.calibration is None and not images_follow:
            raise ConfigError("int8 needs images for calibration; give a recipe or a folder of images with --data")
    for axis in request.free:
        if axis not in FREE_AXES:
            raise ConfigError(f"axis {axis!r} is unknown; use {' or '.join(FREE_AXES)}")
        if axis not in form.free:
            raise ConfigError(f"format {request.format} has no free {axis}; remove {axis} from --dynamic")
    if request.batch_size < 1:
        raise ConfigError(f"batch_size is {request.batch_size}; use at least 1")
    if request.max_batch is not None and request.batch_size > request.max_batch:
        raise ConfigError(
            f"with a free batch, there are at most {request.max_batch} images, but batch_size is {request.batch_size}; "
            "use a smaller one, or remove batch from --dynamic"
        )
    if isinstance(model, HRViT):
        model.config.check_resolution(request.resolution)
    if request.max_side_px is not None and max(request.resolution) > request.max_side_px:
        height, width = request.resolution
        raise ConfigError(
            f"with a free size, sides have at most {request.max_side_px} pixels, but --resolution is {height}×{width}; "
            "use a smaller one, or remove size from --dynamic"
        )
    step = request.side_step
    if "size" in request.free and any(side % step for side in request.resolution):
        height, width = request.resolution
        raise ConfigError(
            f"with a free size, the sides of images of {name} are multiples of {step} pixels (its windows then fit "
            f"every map), but --resolution is {height}×{width}; use {step} or {2 * step}, or remove size from --dynamic"
        )
