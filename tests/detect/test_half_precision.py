"""An ONNX graph in half precision: which nodes, which weights, and where values are cast."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from detect.half_precision import decoding_nodes, halved


def model_of(*nodes: onnx.NodeProto, **weights: float | list[float]) -> onnx.ModelProto:
    """A graph from x (2, 1, 2, 3) to y."""
    made = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in weights.items()]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])]
        for name, shape in (("x", (1, 2, 3)), ("y", (1, "h", "w")))
    ]
    graph = helper.make_graph(list(nodes), "made", ends[0], ends[1], made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, value: float) -> Any:
    """What it gives for an image full of one value, computed as its types say: on a CPU onnxruntime widens them."""
    onnx.checker.check_model(model, full_check=True)
    images = {"x": np.full((2, 1, 2, 3), value, np.float32)}
    found = ReferenceEvaluator(model).run(None, images)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, images)[0], found[0], rtol=1e-3)
    return found[0]


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


@pytest.mark.parametrize(("kept", "expected"), [({"a", "b"}, 2049 + 2050), (set[str](), 2048 + 2050)])
def test_weights_are_halved_and_what_is_kept_counts_exactly(kept: set[str], expected: float) -> None:
    """Above 2048 float16 moves in steps of 2: the weight 2049 becomes 2048, and 2048 + 1 is 2048 again."""
    model = model_of(
        node("Mul", ["x", "scale"], "m"),
        node("Add", ["m", "one"], "a"),
        node("Add", ["m", "two"], "b"),
        node("Add", ["a", "b"], "y"),
        scale=2049,
        one=1,
        two=2,
    )
    assert (answer(model, 1.0) == 2050 + 2051).all()
    made = halved(model, kept)
    assert (answer(made, 1.0) == expected).all()  # y, which gives the output, is always added in float32
    assert {t.name: t.data_type for t in made.graph.initializer}["scale_half"] == TensorProto.FLOAT16


def test_a_value_that_two_kept_nodes_read_is_cast_once() -> None:
    """onnxruntime's own converter casts it twice under one name, which is no valid graph."""
    nodes = [
        node("Mul", ["x", "scale"], "m"),
        node("Add", ["m", "m"], "a"),
        node("Add", ["m", "a"], "b"),
        node("Add", ["a", "b"], "y"),
    ]
    made = halved(model_of(*nodes, scale=3), {"a", "b"})
    casts = [made_node.output[0] for made_node in made.graph.node if made_node.op_type == "Cast"]
    assert casts == ["x_half", "m_float"]
    assert (answer(made, 2.0) == 30).all()  # m 6, a 12, b 18


def test_a_weight_of_both_precisions_is_kept_twice() -> None:
    nodes = [node("Mul", ["x", "scale"], "m"), node("Mul", ["m", "scale"], "y")]
    made = halved(model_of(*nodes, scale=2049), set())
    assert [tensor.name for tensor in made.graph.initializer] == ["scale_half", "scale"]
    assert (answer(made, 1.0) == 2048 * 2049).all()


def test_scales_of_a_resize_stay_float32() -> None:
    nodes = [node("Resize", ["x", "", "scales"], "r", mode="nearest"), node("Mul", ["r", "one"], "y")]
    made = halved(model_of(*nodes, scales=[1, 1, 2, 2], one=1), set())
    assert {t.name: t.data_type for t in made.graph.initializer} == {
        "scales": TensorProto.FLOAT,
        "one": TensorProto.FLOAT,
    }
    assert answer(made, 0.5).shape == (2, 1, 4, 6)


def test_what_decodes_boxes_is_told_by_its_path() -> None:
    names = [
        "/module/model.2/conv/Conv",
        "/module/model.9/Concat",  # right under its layer, as the head's; but not the last layer
        "/module/model.23/cv2.0/cv2.0.0/conv/Conv",
        "/module/model.23/dfl/Softmax",
        "/module/model.23/dfl/conv/Conv",
        "/module/model.23/Sub",
        "",
    ]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name=name) for name in names], "made", [], [])
    assert decoding_nodes(graph) == set(names[3:6])
    nothing = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="Relu_0")], "made", [], [])
    assert decoding_nodes(nothing) == set()
