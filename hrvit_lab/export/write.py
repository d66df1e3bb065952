"""Write a network to a file, load the file in its runtime, and compare the two."""

import copy
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.cli import printable, show_size
from hrvit_lab.errors import ConfigError, is_out_of_memory
from hrvit_lab.export.agreement import Check, compare
from hrvit_lab.export.format import Runner
from hrvit_lab.export.formats import FORMATS, check_request
from hrvit_lab.export.graph import served_form
from hrvit_lab.export.request import Request
from hrvit_lab.files import MIB
from hrvit_lab.network.quiet import quiet

SPARE_BYTES = 16 * MIB
COPIES, COPIES_OF_INT8 = 2, 4
"""Files with all weights that must fit on the disk. An int8 file is made from a float32 one, which ONNX Runtime
copies."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, loaded and compared.

    Attributes:
        path: of the file.
        request: what it was written for.
        checks: comparisons with the plain network.
        output_shapes: of its outputs, for images of ``request.shape``.
    """

    path: Path
    request: Request
    checks: tuple[Check, ...]
    output_shapes: tuple[tuple[int, ...], ...]

    @property
    def lines(self) -> str:
        """Python code that loads and runs the file, from its folder."""
        return FORMATS[self.request.format].lines(self.request, self.path.name)

    @property
    def file_bytes(self) -> int:
        """Size of the file, and of those that belong to it."""
        form = FORMATS[self.request.format]
        return sum((self.path.parent / name).stat().st_size for name in (self.path.name, *form.beside))


def export_network(
    model: nn.Module,
    request: Request,
    folder: Path,
    *,
    name: str = "",
    seed: int = 0,
    begins: Callable[[str], object] = lambda phase: None,
) -> Exported:
    """Export a network in its form for inference.

    Args:
        model: any network from (B, C, H, W) to a tensor, or to several. It is not changed.
        request: the format, the shape of the images and the number format.
        folder: an existing folder; the file's name is that of the format.
        name: of the network, for errors.
        seed: of the images that are compared.
        begins: called with each phase in words when it begins.
    Raises:
        ConfigError: for a request that does not fit the network or the format, a network that cannot be exported, or a
            file whose outputs differ from the network's.
        OSError: if the file cannot be written.
    """
    name = printable(name or type(model).__name__)
    check_request(request, model, name)
    form = FORMATS[request.format]
    plain = copy.deepcopy(model).eval()
    path = folder / form.file
    check_space(folder, needed_bytes(plain, request.dtype))
    with refusals(plain, request, folder, name), quiet(), torch.no_grad():
        begins(f"writing {form.file}" if request.calibration is None else f"calibrating and writing {form.file}")
        form.write(served_form(plain), request, path)
        begins(f"loading it by {form.runtime}")
        run = form.load(path, request)
        begins("comparing it with the network")
        checks = tuple(compare(plain, run, request, seed))
        shapes = tuple(tuple(output.shape) for output in run(torch.zeros(request.shape)))
    check_agreement(checks, name, request)
    return Exported(path, request, checks, shapes)


@contextmanager
def refusals(model: nn.Module, request: Request, folder: Path, name: str) -> Iterator[None]:
    """Describe the errors of exporters and runtimes in one sentence.

    Raises:
        ConfigError: for a network that cannot be exported.
        OSError: for files that cannot be written, with the name of the file or of ``folder``.
        MemoryError: if there is too little memory.
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # exporters and runtimes raise different exceptions
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, error.filename or str(folder)) from None
        if is_out_of_memory(error):
            raise MemoryError(f"{name} at {show_size(request.resolution)}") from None
        check_space(folder, MIB)  # a full disk is the likely reason
        raise ConfigError(_refused(name, request, error)) from error


def needed_bytes(model: nn.Module, dtype: str) -> int:
    """Bytes on the disk for a file and its copies, with ``SPARE_BYTES`` for the graph."""
    copies = COPIES_OF_INT8 if dtype == "int8" else COPIES
    tensors = [*model.parameters(), *model.buffers()]
    return copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors) + SPARE_BYTES


def check_space(folder: Path, needed: int) -> None:
    """Check that the disk has space for this number of bytes.

    Raises:
        OSError: if there is less.
    """
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def check_agreement(checks: tuple[Check, ...], name: str, request: Request) -> None:
    """Check that the file computes what the network computes.

    Raises:
        ConfigError: naming the first images on which a required check fails.
    """
    for check in checks:
        if check.required and not check.agrees:
            shape = "×".join(map(str, check.shape))
            raise ConfigError(
                f"{name} as {request.format}: on images that are {check.images} ({shape}), the relative error is "
                f"{check.relative_error:.2g}, above the tolerance of {check.tolerance:g}, so no file is left; use "
                "another --format or --dtype"
            )


def _refused(name: str, request: Request, error: Exception) -> str:
    """The sentence about a network that the exporter or the runtime does not support."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    reason = f"{type(error).__name__}: {printable(first_line)[:160]}".rstrip(".: ")
    what = f"{name} cannot be exported to {request.format}"
    if "size" in request.free:
        return f"{what} with a free size ({reason}); remove size from --dynamic"
    if request.free:
        return f"{what} with a free batch ({reason}); remove --dynamic"
    return f"{what} at {show_size(request.resolution)} in {request.dtype} ({reason}); use another --format or --dtype"


class ExportedFile(nn.Module):
    """An exported file as a module. It is loaded by its first call, with torch's number of threads at that time.

    Args:
        network: the network that was exported, whose channels and costs describe the file.
        exported: the file.

    Shape: as the network; images in any number format.
    """

    def __init__(self, network: nn.Module, exported: Exported) -> None:
        super().__init__()
        self.network = network
        self.exported = exported
        self._run: Runner | None = None

    def forward(self, images_BCHW: Tensor) -> Any:
        if images_BCHW.is_meta:  # the file costs what the network costs
            return self.network(images_BCHW)
        if self._run is None:
            with quiet(), torch.inference_mode(False):
                self._run = FORMATS[self.exported.request.format].load(self.exported.path, self.exported.request)
        return self._run(images_BCHW.float())

    def __deepcopy__(self, memo: dict[int, object]) -> "ExportedFile":
        """A module with a copy of the network and the same file; each copy loads the file itself."""
        return ExportedFile(copy.deepcopy(self.network, memo), self.exported)
