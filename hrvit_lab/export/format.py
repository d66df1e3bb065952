"""The type of rows of the ``FORMATS`` table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hrvit_lab.export.request import Request

Runner = Callable[[Tensor], list[Tensor]]
"""Float32 images, (B, C, H, W) → the network's outputs, which the next call may overwrite."""


@dataclass(frozen=True)
class Format:
    """One row of ``FORMATS``.

    Attributes:
        runtime: name of what runs the file.
        file: name of the file.
        write: (deployed network, request, path): writes the file.
        load: (path, request) → a function that runs the file.
        lines: (request, file name) → Python code that loads and runs the file.
        dtypes: supported number formats.
        free: axes that can be free.
        packages: required packages that are not dependencies of this project.
        quantizer: those that write an int8 file.
        beside: names of other files that belong to it.
    """

    runtime: str
    file: str
    write: Callable[[nn.Module, Request, Path], None]
    load: Callable[[Path, Request], Runner]
    lines: Callable[[Request, str], str]
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    free: tuple[str, ...] = ("batch", "size")
    packages: tuple[str, ...] = ()
    quantizer: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
