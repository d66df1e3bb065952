"""An OpenVINO file without what OpenVINO does not read computes the same."""

import importlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrvit_lab.export.slim_ir import share_constants, shorten

openvino = pytest.importorskip("openvino")


def graph(branch: bool) -> Any:
    """``(x + a) * a - 3`` for the rows of x, of which the number is free; with ``branch``, of its absolute value."""
    ops = importlib.import_module("openvino.opset13")
    x = ops.parameter([-1, 2], np.float32, name="images")
    first, second = (ops.constant(np.array([1.5, 2], np.float32)) for _ in range(2))
    scaled = ops.multiply(ops.add(x, first), second, name="scaled")
    if branch:
        inner = [ops.parameter([-1, 2], np.float32) for _ in range(2)]
        bodies = [openvino.Model([ops.result(ops.abs(one))], [one]) for one in inner]
        choice = ops.if_op(ops.constant(np.array(True)))
        choice.set_then_body(bodies[0])
        choice.set_else_body(bodies[1])
        choice.set_input(scaled.output(0), *inner)
        scaled = choice.set_output(bodies[0].results[0], bodies[1].results[0])
    last = ops.subtract(scaled, ops.constant(np.array([3, 3], np.float32)))
    last.output(0).set_names({"scores"})
    x.output(0).set_names({"images"})
    return openvino.Model([last], [x])


@pytest.mark.parametrize("branch", [False, True])
def test_a_short_file_computes_the_same(tmp_path: Path, branch: bool) -> None:
    model, path = graph(branch), tmp_path / "model.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    before = path.stat().st_size
    assert [node.get_type_name() for node in model.get_ops()].count("Constant") == 3 + branch
    share_constants(model)
    assert [node.get_type_name() for node in model.get_ops()].count("Constant") == 2 + branch
    openvino.save_model(model, path, compress_to_fp16=False)
    shorten(path)
    once = path.read_bytes()
    shorten(path)
    assert path.read_bytes() == once and sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert branch or len(once) < 0.7 * before
    assert branch or not list(ElementTree.parse(path).getroot().iter("dim"))
    loaded = openvino.Core().read_model(path)
    assert loaded.inputs[0].get_names() == {"images"} and loaded.outputs[0].get_names() == {"scores"}
    assert str(loaded.outputs[0].get_partial_shape()) == "[?,2]"
    run = openvino.Core().compile_model(loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for x in ([[5.0, 6.0]], [[-5.0, 6.0], [0.0, -3.0], [1.0, 1.0]]):
        sign = abs if branch else float
        wanted = [[sign((a + 1.5) * 1.5) - 3, sign((b + 2) * 2) - 3] for a, b in x]
        assert run([np.array(x, np.float32)])[0].tolist() == wanted


def test_constants_of_other_shapes_and_types_are_not_shared() -> None:
    """All are zeros, some of as many bytes."""
    ops = importlib.import_module("openvino.opset13")
    x = ops.parameter([2, 2], np.float32)
    zeros = np.zeros(2, np.float32)
    rows = ops.add(ops.add(x, ops.constant(zeros)), ops.constant(zeros[:, None]))
    axes = [ops.constant(np.zeros((), np.int64)) for _ in range(2)]
    picked = ops.gather(rows, ops.constant(np.zeros(1, np.int64)), axes[0])
    model = openvino.Model([ops.gather(picked, ops.constant(np.zeros(2, np.int32)), axes[1])], [x])
    share_constants(model)
    kept = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    found = sorted((node.get_element_type().get_type_name(), tuple(node.get_output_shape(0))) for node in kept)
    assert found == [("f32", (2,)), ("f32", (2, 1)), ("i32", (2,)), ("i64", ()), ("i64", (1,))]
