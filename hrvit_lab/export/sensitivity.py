"""What int8 costs each part of a network: one part is quantized, and everything else stays float32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hrvit_lab.config.plan import plan
from hrvit_lab.errors import ConfigError
from hrvit_lab.export import int8, onnx_graph
from hrvit_lab.export.accuracy import Accuracy, compare_accuracy, image_counts
from hrvit_lab.export.request import Request
from hrvit_lab.files import MIB
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.places import places
from hrvit_lab.network.rounding import relative_error

MAX_OUTPUT_BYTES = 2048 * MIB
MODULE_DEPTH = 2


@dataclass(frozen=True)
class Piece:
    """Products that are quantized together.

    Attributes:
        stage: a number, ``"stem"`` or ``"head"``; None for networks without stages.
        branch: None for a part that processes all branches.
        part: its kind (``"attention"``, ``"ffn"``, …); for other networks the name of a module.
        nodes: names of its products in the graph.
    """

    stage: int | str | None
    branch: int | None
    part: str
    nodes: tuple[str, ...]

    @property
    def key(self) -> tuple[int | str | None, int | None, str]:
        """Stage, branch and part, which no other piece of the network has together."""
        return self.stage, self.branch, self.part


@dataclass(frozen=True)
class Images:
    """Images to compare outputs on.

    Attributes:
        pixels: (N, C, H, W), as the network takes them, of the request's size.
        targets: the class or the mask of each image; empty if there are none.
        score: ``"top1"`` or ``"miou"``.
        classes: how many.
    """

    pixels: Tensor
    targets: tuple[Any, ...] = ()
    score: str = "top1"
    classes: int = 0


@dataclass(frozen=True)
class Cost:
    """What quantizing a piece costs.

    Attributes:
        weights: elements that are int8.
        relative_error: norm of the outputs' change divided by the norm of the float32 outputs, over all images.
        accuracy: before and after; None for images without targets.
    """

    weights: int
    relative_error: float
    accuracy: Accuracy | None


def pieces(path: Path, model: nn.Module) -> list[Piece]:
    """The pieces of a network, in the order of execution: by stage, branch and part of an HRViT; by module of others.

    Args:
        path: the graph of ``model``, with names.
    """
    found: dict[tuple[int | str | None, int | None, str], list[str]] = {}
    owners = dict(_owners(model)) if isinstance(model, HRViT) else None
    for node, module in onnx_graph.modules_of_nodes(path, int8.PRODUCTS).items():
        key = (None, None, ".".join(module.split(".")[:MODULE_DEPTH])) if owners is None else _owner(module, owners)
        found.setdefault(key, []).append(node)
    return [Piece(*key, tuple(nodes)) for key, nodes in found.items()]


def _owners(model: HRViT) -> Iterator[tuple[str, tuple[int | str | None, int | None, str]]]:
    """The stage, branch and part of every module that is a part of the plan, or of one of its blocks."""
    for place in places(plan(model.config)):
        for part in place.inside or (place,):
            branch = None if isinstance(place.stage, str) else place.branch
            yield part.name, (place.stage, branch, part.part.kind)


def _owner(module: str, owners: dict[str, Any]) -> Any:
    name = module
    while name not in owners:
        if not name:
            raise AssertionError(f"{module or 'the network'} has products but belongs to no part")
        name = name.rpartition(".")[0]
    return owners[name]


class Sensitivity:
    """A network as a graph, of which pieces are quantized.

    Args:
        served: the network, deployed.
        request: int8, with a fixed shape and calibration images.
        images: to compare outputs on.
        folder: for files, which are overwritten.
    Raises:
        ConfigError: if the outputs of all images are too large to keep, or there are too few calibration images.
    """

    def __init__(self, served: nn.Module, request: Request, images: Images, folder: Path) -> None:
        self.request = request
        self.images = images
        self.source = folder / "float32.onnx"
        self._quantized = folder / "int8.onnx"
        self._ranges = folder / "ranges.json"
        self._ranges.unlink(missing_ok=True)
        with torch.no_grad():
            onnx_graph.write_float(served, replace(request, dtype="float32"), self.source, named=True)
        self.graph = onnx_graph.graph_digest(self.source)
        self._reference = self._outputs(self.source)
        self._before = self._counts(self._reference)

    def cost(self, nodes: Sequence[str] = ()) -> Cost:
        """What quantizing these products costs; without names, all of them."""
        assert self.request.calibration is not None, "check_request has checked it"
        int8.quantize(
            self.source, self._quantized, onnx_graph.INPUT, self.request.calibration, self.request.batch_size,
            nodes=nodes, ranges=self._ranges,
        )  # fmt: skip
        outputs = self._outputs(self._quantized)
        accuracy = None
        if self._before is not None:
            accuracy = compare_accuracy(self._before, self._counts(outputs), self.images.score)
        return Cost(int8_weights(self._quantized), relative_error(outputs, self._reference), accuracy)

    def _outputs(self, path: Path) -> Tensor:
        """The first output for all images, (N, …)."""
        run, size = onnx_graph.load(path, self.request), self.request.batch_size
        found: list[Tensor] = []
        for batch in self.images.pixels.split(size):
            missing = size - len(batch)
            whole = torch.cat([batch, batch[:1].expand(missing, -1, -1, -1)]) if missing else batch
            found.append(run(whole)[0][: len(batch)].clone())
            needed = found[0].nbytes // len(found[0]) * len(self.images.pixels)
            if needed > MAX_OUTPUT_BYTES:
                raise ConfigError(
                    f"the outputs of {len(self.images.pixels)} images take {needed / MIB:,.0f} MiB, more than "
                    f"{MAX_OUTPUT_BYTES / MIB:,.0f} MiB; use fewer with --test-images"
                )
        return torch.cat(found)

    def _counts(self, outputs: Tensor) -> Any:
        if not self.images.targets:
            return None
        pairs = zip(outputs, self.images.targets, strict=True)
        return np.stack([image_counts(scores, target, self.images.classes) for scores, target in pairs])


def int8_weights(path: Path) -> int:
    """The number of elements of the int8 matrices and kernels of a file; vectors are zero points."""
    onnx = import_module("onnx")
    tensors = onnx.load(path).graph.initializer
    return sum(
        int(np.prod(tensor.dims))
        for tensor in tensors
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    )
