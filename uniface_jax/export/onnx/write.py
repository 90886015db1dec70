"""Writing of a graph as ONNX: NCHW, symbolic batch, weights rounded to float32 once.

Node names are part of the format: the MFR server feeds raw pixels to a graph among whose first
eight node names one starts with Sub or _minus and one with Mul, _mul or Div. The names written here
are in lower case and start with the ONNX operation (slice_0, conv_0).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uniface_jax import __version__
from uniface_jax.export.onnx.graph import (
    Add,
    Affine,
    Conv,
    Input,
    Linear,
    Node,
    PReLU,
    in_order,
)
from uniface_jax.models import IMAGE_SIZE

INPUT, OUTPUT = "input", "output"


def write(
    output: Node, *, opset: int, mirror: bool, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Write the model of `output`; with `mirror`, it adds the features of mirrored images."""
    writer = Writer(opset)
    features = writer.body(output, writer.images(mirror))
    return writer.model(features, output.shape[-1], mirror, metadata)


class Writer:
    """A model in the making; nodes and tensors are named after the operation, see above."""

    def __init__(self, opset: int):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._counts: Counter[str] = Counter()

    def add(
        self,
        operation: str,
        inputs: list[str],
        constants: Mapping[str, np.ndarray] | None = None,
        outputs: int = 1,
        **attributes: Any,
    ) -> list[str]:
        """Append a node of tensors, then constants by name; return the names of its outputs."""
        name = self.name(operation)
        inputs = list(inputs)
        for key, values in (constants or {}).items():
            rounded = values.astype(np.float32) if values.dtype == np.float64 else values
            self.initializers.append(numpy_helper.from_array(rounded, f"{name}.{key}"))
            inputs.append(f"{name}.{key}")
        results = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operation, inputs, results, name, **attributes))
        return results

    def name(self, operation: str) -> str:
        """Return a new name for a node of this operation."""
        name = f"{operation.lower()}_{self._counts[operation]}"
        self._counts[operation] += 1
        return name

    def images(self, mirror: bool) -> str:
        """Return the images' name; with `mirror`, those mirrored follow in the batch."""
        if not mirror:
            return INPUT
        whole_width_backwards = {
            "starts": np.array([-1]),
            "ends": np.array([np.iinfo(np.int64).min]),
            "axes": np.array([3]),
            "steps": np.array([-1]),
        }
        mirrored = self.add("Slice", [INPUT], whole_width_backwards)
        return self.add("Concat", [INPUT, *mirrored], axis=0)[0]

    def model(
        self, features: str, size: int, mirror: bool, metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """Return the model whose output is `features` [batch, size], the last tensor written.

        With `mirror` it is the sum of the two halves of the batch.
        """
        if mirror:
            halves = self.add("Split", [features], outputs=2, axis=0)
            if self.opset >= 18:
                self.nodes[-1].attribute.append(helper.make_attribute("num_outputs", 2))
            self.add("Add", halves)
        self.nodes[-1].output[0] = OUTPUT
        float32 = TensorProto.FLOAT
        image: list[str | int | None] = ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
        graph = helper.make_graph(
            self.nodes,
            "uniface_jax",
            [helper.make_tensor_value_info(INPUT, float32, image)],
            [helper.make_tensor_value_info(OUTPUT, float32, ["batch", size])],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="uniface_jax",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def body(self, output: Node, images: str) -> str:
        """Write all nodes from the images on; return the name of the tensor `output`."""
        names: dict[Node, str] = {}
        for node in in_order(output):
            inputs = [names[used] for used in node.inputs]
            names[node] = images if isinstance(node, Input) else self._node(node, inputs)
        return names[output]

    def _node(self, node: Node, inputs: list[str]) -> str:
        match node:
            case Conv():
                (top, bottom), (left, right) = node.padding
                constants = {"weight": node.kernel}
                if node.bias.any():
                    constants["bias"] = node.bias
                result = self.add(
                    "Conv",
                    inputs,
                    constants,
                    kernel_shape=node.kernel.shape[2:],
                    strides=node.strides,
                    pads=[top, left, bottom, right],
                    group=node.groups,
                )
            case Affine():
                # One node, not Mul and Add. The variance and epsilon add up to 1; an epsilon of 0
                # would be raised to 1e-5 by older cuDNN.
                epsilon = 1e-5
                zero = np.zeros_like(node.scale)
                constants = {
                    "scale": node.scale,
                    "bias": node.bias,
                    "mean": zero,
                    "variance": zero + 1 - epsilon,
                }
                result = self.add("BatchNormalization", inputs, constants, epsilon=epsilon)
            case PReLU():
                per_channel = (-1,) + (1,) * (len(node.shape) - 2)
                result = self.add("PRelu", inputs, {"slope": node.slope.reshape(per_channel)})
            case Add():
                result = self.add("Add", inputs)
            case Linear():
                positions, channels, features = node.kernel.shape
                if len(node.inputs[0].shape) > 2:
                    inputs = self.add("Flatten", inputs, axis=1)
                # The rows follow ONNX's order of a flattened map: channel by channel.
                kernel = node.kernel.transpose(1, 0, 2).reshape(positions * channels, features)
                result = self.add("Gemm", inputs, {"weight": kernel, "bias": node.bias})
            case _:
                raise AssertionError(f"no ONNX for {type(node).__name__}")
        return result[0]
