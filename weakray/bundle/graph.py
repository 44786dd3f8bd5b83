"""Makes an exported ONNX file repeatable: same weights, same bytes, wherever and whenever it was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from weakray.errors import BundleError
from weakray.files import write_bytes


def tidy(path: Path, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Rewrites an ONNX file in place without what differs from export to export, and with its shapes spelt out.

    Removed are the notes that exporters leave on nodes and values: stack traces, source paths, module names.

    Args:
        path: a graph with all its weights inside the file.
        shapes: name of every input and output → its shape; a word stands for a free size.

    Raises:
        BundleError: if the graph's inputs and outputs are not those of `shapes`, or the graph is not valid ONNX.
    """
    model = onnx.load(path)
    del model.metadata_props[:]
    model.doc_string = ""
    for owner in (model.graph, *model.functions):
        owner.doc_string = ""
        del owner.metadata_props[:]
        values = [*owner.value_info]
        if isinstance(owner, onnx.GraphProto):
            values += [*owner.input, *owner.output, *owner.initializer]
        for entry in (*owner.node, *values):
            entry.doc_string = ""
            del entry.metadata_props[:]
    ends = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    if set(ends) != set(shapes):
        raise BundleError(f"{path}: expected inputs and outputs {sorted(shapes)}, got {sorted(ends)}")
    for name, shape in shapes.items():
        ends[name].type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{path}: expected a valid ONNX graph, got: {error}") from None
    write_bytes(path, model.SerializeToString(deterministic=True))
