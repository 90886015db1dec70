"""Networks in float16: weights and sums of two bytes, images and features of float32."""

import warnings

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from uniface_jax.errors import UserError
from uniface_jax.inference.probe import one_line


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model`, of float32, in float16; its input and output stay float32.

    Weights nearer to 0 than 6e-8 become that, and larger ones than 65504 that. Raises UserError
    where onnxruntime's tool cannot convert it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of each weight that is rounded to the least number
            converted = convert_float_to_float16(copy, keep_io_types=True)
        ordered = ONNXModel(converted)
        ordered.topological_sort()
    except Exception as e:  # of onnxruntime and onnx, which share no base
        raise UserError(f"--quantize=float16: onnxruntime cannot ({one_line(str(e))})") from e
    result: onnx.ModelProto = ordered.model
    return result
