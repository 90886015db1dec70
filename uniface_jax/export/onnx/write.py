"""Writes a graph as ONNX: NCHW, symbolic batch, weights rounded to float32 once."""

from collections.abc import Mapping

import onnx

from uniface_jax.export.onnx.graph import Input, Node, in_order
from uniface_jax.export.onnx.nodes import write_node
from uniface_jax.export.onnx.writer import Writer


def write(
    output: Node, *, opset: int, mirror: bool, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the model of `output`; with `mirror`, the features of mirrored images are added."""
    writer = Writer(opset)
    images = writer.images(mirror)
    names: dict[Node, str] = {}
    for node in in_order(output):
        inputs = [names[used] for used in node.inputs]
        names[node] = images if isinstance(node, Input) else write_node(node, writer, inputs)
    return writer.model(names[output], output.shape[-1], mirror, metadata)
