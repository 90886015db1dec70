"""Proof that an exported file computes what JAX does, before it is left on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing
from uniface_jax.inference.mirror import mirror_sum
from uniface_jax.models import IMAGE_SIZE, normalize

if TYPE_CHECKING:  # the other formats do without
    import onnx

TOLERANCE = 1e-5
BATCHES = (1, 3, 5)

Function = Callable[[jax.Array], jax.Array]
# Images float32 [B, 112, 112, 3] in [-1, 1] -> features [B, D], outside of JAX.
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written; `differences` are relative, by batch size."""

    path: str
    opset: int
    nodes: int
    parameters: int
    bytes: int
    differences: dict[int, float]


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def onnx_runner(model: "onnx.ModelProto | Path") -> Run:
    """Return an ONNX model that takes NCHW as a function, in onnxruntime on the CPU."""
    import onnxruntime

    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        found: list[np.ndarray] = session.run(None, {name: _channels_first(images)})
        return found[0]

    return run


def differences(run: Run, function: Function, batches: Sequence[int] = BATCHES) -> dict[int, float]:
    """Return max |run - jax| / max |jax|, of `run` and `function` in JAX, by batch size.

    The maxima are over the features of random images that were 8-bit once. A result that is not
    finite makes the difference nan. `function` maps [B, 112, 112, 3] to [B, D], the mirror sum
    included where `run` has it; it runs once, on the largest batch, of which the smaller ones are
    the beginning. Raises UserError where the shapes differ.
    """
    shape = (max(batches), IMAGE_SIZE, IMAGE_SIZE, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = np.asarray(normalize(jnp.asarray(pixels)))
    # By default GPUs multiply float32 in TF32 and TPUs in bfloat16: 1e-3 off, against 1e-6 here.
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(function)(images), np.float64)
    return {batch: relative(run(images[:batch]), expected[:batch]) for batch in batches}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest |found - expected| over the largest |expected|, both [B, D].

    Raises UserError where the shapes differ.

    >>> relative(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    0.5
    """
    if found.shape != expected.shape:
        raise UserError(
            f"export: the exported model gives {found.shape} for batch {len(expected)}, "
            f"expected {expected.shape}"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.abs(found - expected).max() / np.abs(expected).max())


def compare(
    model: "onnx.ModelProto | Path", function: Function, batches: Sequence[int] = BATCHES
) -> dict[int, float]:
    """Return `differences` of an ONNX model in onnxruntime."""
    return differences(onnx_runner(model), function, batches)


def check(path: Path, found: Mapping[int, float]) -> None:
    """Raise UserError where one of the differences of what would become `path` is too large."""
    if not all(difference <= TOLERANCE for difference in found.values()):
        raise UserError(
            f"export: {path} not written: it differs from JAX by {dict(found)} relative, by batch; "
            f"allowed is {TOLERANCE:g}"
        )


def write_verified(
    model: "onnx.ModelProto", path: Path, function: Function, mirror: bool
) -> Exported:
    """Write `model`, if it computes `function` (with `mirror`, its mirror sum) in onnxruntime.

    Raises UserError, and leaves what was at `path`, where any difference on batches of 1, 3 and 5
    exceeds 1e-5 relative.
    """
    import onnx

    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        # The file is compared, not the model in memory: it is what others will read.
        found = compare(temporary, mirror_sum(function) if mirror else function)
        check(path, found)
        size = temporary.stat().st_size
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    return Exported(str(path), opset, len(model.graph.node), parameters, size, found)
