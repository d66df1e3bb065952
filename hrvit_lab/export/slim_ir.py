"""Make an OpenVINO file smaller, without a change to what it computes.

The graph is text, which for a small network takes more space than the weights. OpenVINO computes all shapes again when
it loads a file.
"""

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from hrvit_lab.files import write_atomically

SHARED = ("f32", "f16", "i64", "i32", "i8", "u8")
"""Element types of constants that are compared."""
NAMED = ("Parameter", "Result")
"""Operators whose names are kept: inputs and outputs."""


def share_constants(model: Any) -> None:
    """Keep equal constants of an OpenVINO model once."""
    first: dict[tuple[object, ...], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or (kind := node.get_element_type().get_type_name()) not in SHARED:
            continue
        content = hashlib.sha256(node.get_data().tobytes()).digest()
        kept = first.setdefault((kind, tuple(node.get_output_shape(0)), content), node)
        if kept is not node:
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(kept.output(0))


def shorten(path: Path) -> None:
    """Remove shapes of intermediate values and spaces from an ``.xml`` file, and name operators by numbers.

    Inputs and outputs keep their names. A graph with branches or loops stays as it is.
    """
    tree = ElementTree.parse(path)
    root = tree.getroot()
    if len(list(root.iter("layers"))) > 1:
        return
    kinds = {layer.get("id"): layer.get("type") for layer in root.iter("layer")}
    shown = {edge.get("from-layer") for edge in root.iter("edge") if kinds[edge.get("to-layer")] == "Result"}
    for layer in root.iter("layer"):
        number = str(layer.get("id"))
        if kinds[number] not in NAMED:
            layer.set("name", number)
        for port in layer.iter("port"):
            for shape in port.findall("dim"):
                port.remove(shape)
            if kinds[number] not in NAMED and number not in shown:
                port.attrib.pop("names", None)
    for part in root.iter():
        part.text = part.tail = None
    text = ElementTree.tostring(root, encoding="unicode")
    write_atomically(path, '<?xml version="1.0"?>\n' + text.replace(" />", "/>"))
