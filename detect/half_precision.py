"""A detector's ONNX graph in half precision: weights and convolutions in float16, at half the size.

It takes and gives float32, as the other does. What decodes boxes stays in float32: a float16 above 512 moves in steps
of half a pixel. onnxruntime computes in float16 where the device can; elsewhere, as on most CPUs, it widens the numbers
before each layer, so that there the file is smaller and the passes are no faster.

(The converter of onnxruntime 1.31 cannot be used: a value that two of the nodes it must leave alone read is cast twice
under one name, which is no valid ONNX.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from weakray.bundle.graph import tidy

# What says in float32 how large something is, makes constants, or changes types by its own attribute.
_LEFT_ALONE = frozenset({"Cast", "Constant", "ConstantOfShape", "Range", "Shape", "Size"})
_FLOAT32_FROM_INPUT = {"Resize": 1}  # its region and scales are float32 by definition, whatever it resizes


def write_half(source: Path, path: Path) -> None:
    """Writes `path`, the graph of `source` in half precision; the same graph gives the same bytes.

    Args:
        source: as `exporting.export_detector` writes it.
        path: file to write.
    """
    model = onnx.load(source)
    ends = (*model.graph.input, *model.graph.output)
    shapes = {end.name: ("n", *(dim.dim_value for dim in end.type.tensor_type.shape.dim[1:])) for end in ends}
    onnx.save(halved(model, decoding_nodes(model.graph)), path)
    tidy(path, shapes)


def decoding_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that turn the head's features into boxes: those right under its name, and its `dfl`.

    Nodes carry the path of the module that made them, /module/model.23/cv2.0/…; the head is the last of the model.
    """
    paths = {node.name: node.name.split("/") for node in graph.node}
    layers = {path[2] for path in paths.values() if len(path) > 3 and path[2].startswith("model.")}
    head = max(layers, key=lambda layer: int(layer.rsplit(".", 1)[-1]), default=None)
    return {name for name, path in paths.items() if path[2:3] == [head] and (len(path) == 4 or path[3] == "dfl")}


def halved(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """The model with all nodes in float16 but those named, those that cannot be, and those that give its outputs.

    Values are cast where nodes of unlike precision meet, each once; its inputs and outputs stay float32.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    types |= {name: tensor.data_type for name, tensor in weights.items()}
    halving = _Halving({name for name, kind in types.items() if kind == TensorProto.FLOAT}, weights)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        alone = node.op_type in _LEFT_ALONE or node.name in kept or not outputs.isdisjoint(node.output)
        halving.take(node, half=not alone)
    for field_name, values in (("node", halving.nodes), ("initializer", halving.initializers.values())):
        made.graph.ClearField(field_name)
        getattr(made.graph, field_name).extend(values)
    del made.graph.value_info[:]  # of types that are no longer so
    return made


@dataclass
class _Halving:
    """The graph as it is written anew, node by node.

    Attributes:
        floats: values that are float32 in the graph as it was.
        weights: its initializers.
        nodes: written so far.
        initializers: that they read.
        halves: of `floats`, those that are float16 now.
        casts: values that were cast, by name and type → the new value's name.
    """

    floats: set[str]
    weights: dict[str, TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    halves: set[str] = field(default_factory=set)
    casts: dict[tuple[str, bool], str] = field(default_factory=dict)

    def take(self, node: onnx.NodeProto, *, half: bool) -> None:
        """Writes a node, its inputs and outputs in float16 or float32."""
        mine = onnx.NodeProto()
        mine.CopyFrom(node)
        for i, name in enumerate(node.input):
            wanted = half and i < _FLOAT32_FROM_INPUT.get(node.op_type, len(node.input))
            mine.input[i] = self._read(name, half=wanted)
        if half:
            self.halves.update(self.floats.intersection(node.output))
        self.nodes.append(mine)

    def _read(self, name: str, *, half: bool) -> str:
        """The name under which a value can be read in the precision wanted."""
        if name in self.weights:
            return self._weight(name, half=half)
        if name not in self.floats or (name in self.halves) == half:
            return name
        if (name, half) not in self.casts:
            cast = self.casts[name, half] = f"{name}_{'half' if half else 'float'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(onnx.helper.make_node("Cast", [name], [cast], name=f"{cast}_cast", to=to))
        return self.casts[name, half]

    def _weight(self, name: str, *, half: bool) -> str:
        tensor = self.weights[name]
        if half and name in self.floats:
            name = f"{name}_half"
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor = onnx.numpy_helper.from_array(values, name)
        self.initializers.setdefault(name, tensor)
        return name
