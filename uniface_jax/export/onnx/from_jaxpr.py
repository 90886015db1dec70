"""From a JAX function to ONNX: trace the jaxpr, merge what is affine, find layers, write NCHW."""

from collections.abc import Callable, Mapping

import jax
import onnx

from uniface_jax.errors import UserError
from uniface_jax.export.onnx.composites import compose
from uniface_jax.export.onnx.fuse import fuse
from uniface_jax.export.onnx.opsets import DEFAULT_OPSET, OPSETS
from uniface_jax.export.onnx.trace import trace
from uniface_jax.export.onnx.write import write
from uniface_jax.models import IMAGE_SIZE


def to_onnx(
    function: Callable[[jax.Array], jax.Array],
    *,
    opset: int = DEFAULT_OPSET,
    mirror: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return `function` as an ONNX model, which computes the same in float32.

    Args:
        function: maps images [1, 112, 112, 3] to features [1, D], its weights closed over.
        opset: ONNX's, one of OPSETS.
        mirror: whether the model adds the features of the mirrored images; `function` is the plain
            network all the same.
        metadata: becomes the model's metadata_props.

    Returns:
        A model that takes `input` [batch, 3, 112, 112], float32 RGB in [-1, 1], and gives `output`
        [batch, D], float32, for any batch.

    Raises:
        UserError: the opset is not in OPSETS, or there is no rule for one of the operations.

    Example:
        >>> import numpy as np
        >>> kernel = np.ones((112 * 112 * 3, 2), np.float32)
        >>> model = to_onnx(lambda images: images.reshape(1, -1) @ kernel, mirror=False)
        >>> [node.op_type for node in model.graph.node]
        ['Flatten', 'Gemm']
    """
    if opset not in OPSETS:
        raise UserError(f"opset={opset}: allowed are {OPSETS[0]} to {OPSETS[-1]}")
    graph = compose(fuse(trace(function, (1, IMAGE_SIZE, IMAGE_SIZE, 3))))
    return write(graph, opset=opset, mirror=mirror, metadata=metadata or {})
