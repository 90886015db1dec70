"""A model in the making, of nodes written one after another.

Node names are part of the format: the MFR server feeds raw pixels to a graph among whose first
eight node names one starts with Sub or _minus and one with Mul, _mul or Div. Ours are in lower
case and start with the ONNX operation (slice_0, conv_0).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uniface_jax import __version__
from uniface_jax.models import IMAGE_SIZE

INPUT, OUTPUT = "input", "output"


class Writer:
    """Nodes and tensors of a model, named after the operation, see above."""

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
        """Appends a node of tensors, then constants by name; gives the names of its outputs."""
        name = self.name(operation)
        inputs = list(inputs)
        for key, values in (constants or {}).items():
            inputs.append(self.constant(values, f"{name}.{key}"))
        results = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operation, inputs, results, name, **attributes))
        return results

    def constant(self, values: np.ndarray, name: str) -> str:
        """Add an array, float64 rounded to float32; give its name."""
        rounded = values.astype(np.float32) if values.dtype == np.float64 else values
        self.initializers.append(numpy_helper.from_array(rounded, name))
        return name

    def name(self, operation: str) -> str:
        """Return a new name for a node of this operation."""
        name = f"{operation.lower()}_{self._counts[operation]}"
        self._counts[operation] += 1
        return name

    def images(self, mirror: bool) -> str:
        """Return the model's images and, with `mirror`, the mirrored ones behind them."""
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
