"""From a JAX function to an ONNX file that was compared with it."""

from collections.abc import Mapping
from pathlib import Path

from uniface_jax.export.onnx.from_jaxpr import to_onnx
from uniface_jax.export.onnx.opsets import DEFAULT_OPSET
from uniface_jax.export.verify import Exported, Function, write_verified


def export(
    function: Function,
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    mirror: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write `function` (see to_onnx) to `path`, verified as write_verified does."""
    model = to_onnx(function, opset=opset, mirror=mirror, metadata=metadata)
    return write_verified(model, path, function, mirror)
