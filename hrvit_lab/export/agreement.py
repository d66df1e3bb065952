"""Compare an exported file with the plain network, on random images and on edge cases."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hrvit_lab.export.format import Runner
from hrvit_lab.export.request import Request
from hrvit_lab.network.rounding import relative_error, tolerance_of

LARGE = 1e4
NAN_PIXEL = (1, 2)


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        images: what the images are, in words.
        shape: (B, C, H, W) of the images.
        relative_error: norm of the difference divided by the norm of the plain network's output, over the elements that
            are finite there; infinite if a shape differs or an output is not finite where the plain network's is.
        tolerance: the largest error that passes.
        same_nan: whether the outputs are NaN at the same elements.
        required: whether a file that fails is refused. Runtimes differ in what they do with values outside of their
            number format's range, and with NaN; that is shown only.
    """

    images: str
    shape: tuple[int, ...]
    relative_error: float
    tolerance: float
    same_nan: bool
    required: bool

    @property
    def agrees(self) -> bool:
        """Whether the outputs agree."""
        return self.same_nan and self.relative_error <= self.tolerance and math.isfinite(self.relative_error)


def images_to_check(request: Request, seed: int) -> Iterator[tuple[str, Tensor, bool]]:
    """Images with their description, and whether a file must agree on them.

    An int8 file must agree on images from its calibration: values that are not between the smallest and the largest of
    these are clipped.
    """
    generator = torch.Generator().manual_seed(seed)
    real = request.calibration
    if real is not None:
        for shape in (request.shape, *request.other_shapes):
            yield "from calibration", with_shape(real, shape), True
    yield "random", torch.randn(request.shape, generator=generator), real is None
    for shape in request.other_shapes:
        yield "random, another shape", torch.randn(shape, generator=generator), real is None
    yield "constant, 0", torch.zeros(request.shape), real is None
    yield "constant, 1", torch.ones(request.shape), real is None
    signs = torch.randint(2, request.shape, generator=generator).float() * 2 - 1
    yield "±10,000", LARGE * signs, request.dtype == "float32"
    one_nan = torch.randn(request.shape, generator=generator)
    one_nan[0, 0, NAN_PIXEL[0] % request.resolution[0], NAN_PIXEL[1] % request.resolution[1]] = math.nan
    yield "random with one NaN", one_nan, False


def with_shape(images_NCHW: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """The first of some images, resized and repeated where that is needed for ``shape``, (B, C, H, W)."""
    batch, _, *size = shape
    chosen = images_NCHW[torch.arange(batch) % len(images_NCHW)]
    return chosen if list(chosen.shape[2:]) == size else F.interpolate(chosen, size, mode="bilinear")


@torch.inference_mode()
def compare(plain: nn.Module, run: Runner, request: Request, seed: int = 0) -> list[Check]:
    """Compare the outputs of an exported file with those of the plain network, eager and in float32.

    Args:
        plain: in evaluation mode, on the CPU, in float32.
        run: the loaded file.
    """
    tolerance = tolerance_of(request.dtype)
    checks = []
    for words, images_BCHW, required in images_to_check(request, seed):
        wanted = [output.detach() for output in tree_leaves(plain(images_BCHW))]
        error, same_nan = difference(run(images_BCHW), wanted)
        checks.append(Check(words, tuple(images_BCHW.shape), error, tolerance, same_nan, required))
    return checks


def difference(outputs: list[Tensor], wanted: list[Tensor]) -> tuple[float, bool]:
    """Relative error over the elements that are finite in ``wanted``, and whether NaN is at the same elements.

    >>> difference([torch.tensor([1.0, math.nan])], [torch.tensor([1.0, math.nan])])
    (0.0, True)
    """
    if [output.shape for output in outputs] != [output.shape for output in wanted]:
        return math.inf, False
    finite = [output.isfinite() for output in wanted]
    same_nan = all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(outputs, wanted, strict=True))
    ours = [output[mask] for output, mask in zip(outputs, finite, strict=True)]
    theirs = [output[mask] for output, mask in zip(wanted, finite, strict=True)]
    if all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)):
        return 0.0, same_nan  # also where the reference is zero, or nowhere finite
    return relative_error(ours, theirs), same_nan
