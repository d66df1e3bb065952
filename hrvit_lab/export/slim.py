"""Make an ONNX file smaller, without a change to what it computes.

The graph of a small network is larger than its weights. Most of it is text: where each node was traced from, the shapes
of values, and long names.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any


def slim(path: Path) -> None:
    """Remove metadata and inferred shapes, keep equal constants once, and name intermediate values by numbers.

    Inputs and outputs keep their names. A graph with branches or loops keeps all names and constants.
    """
    onnx = import_module("onnx")
    model = onnx.load(path)
    graph = model.graph
    for place in (model, graph, *graph.node, *graph.initializer):
        del place.metadata_props[:]
        place.doc_string = ""
    del graph.value_info[:]
    if not any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        fixed = {value.name for value in (*graph.input, *graph.output)}
        same = dict(_equal_constants(graph, fixed))
        kept = [tensor for tensor in graph.initializer if tensor.name not in same]
        _replace(graph.initializer, kept)
        names: dict[str, str] = {}

        def number(name: str) -> str:
            """The name's number; an absent optional input has no name."""
            name = same.get(name, name)
            return name if not name or name in fixed else names.setdefault(name, f"{len(names):x}")

        for node in graph.node:
            node.name = ""
            node.input[:] = map(number, node.input)
            node.output[:] = map(number, node.output)
        for tensor in graph.initializer:
            tensor.name = number(tensor.name)
    onnx.save(model, path)


def _equal_constants(graph: Any, fixed: set[str]) -> Iterator[tuple[str, str]]:
    """Names of constants that equal an earlier one, with its name."""
    first: dict[bytes, str] = {}
    for tensor in graph.initializer:
        content = type(tensor)()
        content.CopyFrom(tensor)
        content.name = ""
        key = content.SerializeToString(deterministic=True)
        if key in first and tensor.name not in fixed:
            yield tensor.name, first[key]
        else:
            first.setdefault(key, tensor.name)


def _replace(field: Any, values: list[Any]) -> None:
    """Set a repeated field; the values may be its own."""
    copies = []
    for value in values:
        copies.append(type(value)())
        copies[-1].CopyFrom(value)
    del field[:]
    field.extend(copies)
