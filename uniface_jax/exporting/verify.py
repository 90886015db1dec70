"""Proves that an ONNX model computes what JAX does, before it is left on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime

from uniface_jax.errors import UserError
from uniface_jax.exporting.jaxpr_to_onnx import DEFAULT_OPSET, to_onnx
from uniface_jax.models import IMAGE_SIZE, normalize

TOLERANCE = 1e-5
BATCHES = (1, 3, 5)


@dataclass(frozen=True)
class Exported:
    """What export() wrote; `differences` are relative, by batch size."""

    path: str
    opset: int
    nodes: int
    parameters: int
    bytes: int
    differences: dict[int, float]


def compare(
    model: onnx.ModelProto | Path,
    function: Callable[[jax.Array], jax.Array],
    batches: Sequence[int] = BATCHES,
) -> dict[int, float]:
    """The difference of `model` in onnxruntime (CPU) from `function` in JAX, by batch size.

    It is max |onnx - jax| / max |jax| over the features of random images that were 8-bit once. A
    result that is not finite makes the difference nan. `function` maps [B, 112, 112, 3] to [B, D],
    the mirror sum included where the model has it; it runs once, on the largest batch, of which
    the smaller ones are the beginning.
    """
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pixels = np.random.default_rng(0).integers(
        0, 256, (max(batches), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8
    )
    images = np.asarray(normalize(jax.numpy.asarray(pixels)))
    # By default GPUs multiply float32 in TF32 and TPUs in bfloat16: 1e-3 off, against 1e-6 here.
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(function)(images), np.float64)
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    differences = {}
    for batch in batches:
        (features,) = session.run(None, {name: channels_first[:batch]})
        if features.shape != expected[:batch].shape:
            raise UserError(
                f"export: the ONNX model gives {features.shape} for batch {batch}, "
                f"JAX {expected[:batch].shape}"
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(features - expected[:batch]).max() / np.abs(expected[:batch]).max()
        differences[batch] = float(error)
    return differences


def export(
    function: Callable[[jax.Array], jax.Array],
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    mirror: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Writes `function` (see to_onnx) to `path`, if it computes the same in onnxruntime.

    Raises UserError, and leaves what was at `path`, where any difference on batches of 1, 3 and 5
    exceeds 1e-5 relative.
    """
    model = to_onnx(function, opset=opset, mirror=mirror, metadata=metadata)
    onnx.checker.check_model(model, full_check=True)

    def reference(images: jax.Array) -> jax.Array:
        features = function(images)
        return features + function(images[:, :, ::-1]) if mirror else features

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        onnx.save(model, temporary)
        # The file is compared, not the model in memory: it is what others will read.
        differences = compare(temporary, reference)
        if not all(difference <= TOLERANCE for difference in differences.values()):
            raise UserError(
                f"export: {path} not written: it differs from JAX by {differences} relative, by "
                f"batch; allowed is {TOLERANCE:g}"
            )
        size = temporary.stat().st_size
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    return Exported(str(path), opset, len(model.graph.node), parameters, size, differences)
