"""Second route to ONNX: jax2tf, then TFLite, then tf2onnx; independent of the first.

Its graphs are larger; it is there to check the first route, and for networks that that one does not
know.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from uniface_jax.errors import UserError, extra
from uniface_jax.export.formats import INPUT, tflite_bytes
from uniface_jax.export.onnx.writer import Writer
from uniface_jax.export.verify import Function

OPSETS = range(13, 19)
DEFAULT_OPSET = 13
_CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"


def to_onnx_by_tflite(
    function: Function,
    *,
    opset: int = DEFAULT_OPSET,
    mirror: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return `function` as ONNX, with the arguments, input and output of from_jaxpr.to_onnx.

    Raises UserError for an opset that is not in OPSETS, and where tf2onnx is not installed.
    """
    if opset not in OPSETS:
        raise UserError(
            f"opset={opset}: allowed are {OPSETS[0]} to {OPSETS[-1]} by the route jax2tf"
        )
    with extra("tensorflow"):
        import tf2onnx
    _keep_biases()
    # A symbolic batch from the start would make the graph three times as large.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(tflite_bytes(function, batch=1))
        with warnings.catch_warnings(), _without_copies():
            warnings.simplefilter("ignore")  # that TFLite's interpreter is to move
            static, _ = tf2onnx.convert.from_tflite(str(path), opset=opset, inputs_as_nchw=[INPUT])
    graph = static.graph
    _free_batch(graph)
    (features,) = graph.output
    writer = Writer(opset)
    images = writer.images(mirror)
    for node in graph.node:
        # Also frees the names, which on this route begin with whatever the layers are called.
        node.name = writer.name(node.op_type)
        node.input[:] = [images if name == INPUT else name for name in node.input]
    last = next(node for node in graph.node if features.name in node.output)
    writer.nodes += [*(node for node in graph.node if node is not last), last]
    writer.initializers += graph.initializer
    size = features.type.tensor_type.shape.dim[1].dim_value
    return writer.model(features.name, size, mirror, metadata or {})


@contextmanager
def _without_copies() -> Iterator[None]:
    """Have tf2onnx end at an optimization that fails, which else it goes on without.

    To do so it copies the graph and all weights before each: of R50, 6 GB and half of its time.
    """
    before = os.environ.get(_CATCH_ERRORS)
    os.environ[_CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        del os.environ[_CATCH_ERRORS]
        if before is not None:
            os.environ[_CATCH_ERRORS] = before


def _keep_biases() -> None:
    """Register tf2onnx's conversion of fully connected layers anew, with their biases.

    Version 1.17 drops the bias where the layer's input has more than two dimensions, as
    MobileFaceNet's has: `to_tf` replaces three inputs by two before it looks for a third.
    """
    from tf2onnx.handler import tfl_op
    from tf2onnx.tflite_handlers.tfl_math import TflFullyConnectedOp

    def to_tf(ctx: Any, node: Any, **kwargs: Any) -> None:
        bias = node.input[2:]
        ctx.replace_inputs(node, node.input[:2])
        TflFullyConnectedOp.to_tf(ctx, node, **kwargs)
        if bias:
            add = ctx.insert_new_node_on_output(
                "Add", node.output[0], inputs=[node.output[0], bias[0]]
            )
            add.skip_conversion = True

    kept = type("FullyConnected", (), {"to_tf": staticmethod(to_tf)})
    tfl_op(["TFL_FULLY_CONNECTED"])(kept)


def _free_batch(graph: onnx.GraphProto) -> None:
    """Let reshapes to [1, …] and slices that end at image 1 keep any batch.

    Nothing else in these networks fixes it. Slices matter of what comes from the images alone: a
    part of a weight stays what it is.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    from_images = {INPUT}
    for node in graph.node:
        if from_images.isdisjoint(node.input):
            continue
        from_images.update(node.output)
        if node.op_type == "Reshape":
            freed = _free_shape(constants.get(node.input[1]))
        elif node.op_type == "Slice":
            freed = _free_ends(*(constants.get(name) for name in node.input[1:]))
        else:
            continue
        if freed is not None:
            place = 1 if node.op_type == "Reshape" else 2
            # A name of its own: the old array may serve other nodes, in other places.
            name = f"{node.output[0]}_any_batch"
            graph.initializer.append(numpy_helper.from_array(freed, name))
            node.input[place] = name
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _free_shape(shape: np.ndarray | None) -> np.ndarray | None:
    """Return the shape of a reshape with any batch; None where the batch is not fixed."""
    if shape is None or shape[0] != 1:
        return None
    return np.concatenate([np.array([-1], shape.dtype), shape[1:]])


def _free_ends(
    starts: np.ndarray | None,
    ends: np.ndarray | None,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray | None:
    """Return the ends of a slice that takes all images; None where it does not cut them."""
    if starts is None or ends is None:
        return None
    along = list(range(len(ends))) if axes is None else axes.tolist()
    if 0 not in along:
        return None
    batch = along.index(0)
    if (starts[batch], ends[batch]) != (0, 1) or (steps is not None and steps[batch] != 1):
        return None
    freed = ends.copy()
    freed[batch] = np.iinfo(ends.dtype).max
    return freed
