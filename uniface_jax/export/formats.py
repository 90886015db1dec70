"""Exports as SavedModel and TFLite by jax2tf, and as StableHLO by jax.export.

All three take `images` [batch, 112, 112, 3], float32 RGB in [-1, 1], for any batch, and give
features [batch, D]. This module imports TensorFlow where it is needed, not before.
"""

import errno
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from uniface_jax.errors import UserError, extra
from uniface_jax.export.verify import (
    Function,
    Run,
    check,
    differences,
)
from uniface_jax.files.atomic import new_folder, replacing
from uniface_jax.inference.mirror import mirror_sum
from uniface_jax.models import IMAGE_SIZE

INPUT = "images"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that a StableHLO file runs on
_ANY_BATCH = f"batch, {IMAGE_SIZE}, {IMAGE_SIZE}, 3"


@dataclass(frozen=True)
class Written:
    """A file that write_format() wrote; `differences` are relative, by batch size."""

    path: str
    format: str
    bytes: int
    differences: dict[int, float]


def write_format(function: Function, path: Path, name: str, mirror: bool = True) -> Written:
    """Write `function` (images -> features, weights closed over) in the format `name`.

    name: of FORMATS. With `mirror`, the features of the mirrored images are added. Raises UserError
    for a SavedModel that would overwrite something, where TensorFlow is too old for this jax, and
    where what was written differs from JAX by more than 1e-5 relative on batches of 1, 3 and 5;
    then nothing is left at `path`.
    """
    write, load = FORMATS[name]
    features = mirror_sum(function) if mirror else function
    folder = name == "savedmodel"
    if folder and path.exists():
        raise UserError(f"{path}: exists already; a SavedModel is a new folder, give another one")
    with (new_folder if folder else replacing)(path) as temporary, _one_line_if_unreadable():
        write(features, temporary)
        found = differences(load(temporary), features)
        check(path, found)
    files = [file for file in path.rglob("*") if file.is_file()] if folder else [path]
    return Written(str(path), name, sum(file.stat().st_size for file in files), found)


@contextmanager
def _one_line_if_unreadable() -> Iterator[None]:
    """Raise UserError where TensorFlow is too old for this jax's StableHLO (2.21 for 0.12 is)."""
    try:
        yield
    except Exception as e:  # TensorFlow has no common type for what it cannot read
        if "StableHLO" not in str(e):
            raise
        raise UserError(
            f"TensorFlow {_tensorflow().__version__} cannot read the StableHLO of jax "
            f"{jax.__version__}; use the direct route to ONNX, or an older jax (0.10.2 works)"
        ) from e


def _write_stablehlo(features: Function, path: Path) -> None:
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(_ANY_BATCH), jnp.float32)
    exported = jax.export.export(jax.jit(features), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def _load_stablehlo(path: Path) -> Run:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return lambda images: np.asarray(exported.call(images))


def _tensorflow() -> Any:
    """Return the module, which takes seconds to import; UserError where it is not installed."""
    with extra("tensorflow"):
        import tensorflow
    return tensorflow


def tensorflow_function(features: Function, batch: int | None) -> Any:
    """Return a tf.function of images [batch, 112, 112, 3], by jax2tf; None is any batch."""
    from jax.experimental import jax2tf

    tf = _tensorflow()
    shapes = None if batch else [_ANY_BATCH]
    converted = jax2tf.convert(features, polymorphic_shapes=shapes, with_gradient=False)
    shape = [batch, IMAGE_SIZE, IMAGE_SIZE, 3]
    signature = [tf.TensorSpec(shape, tf.float32, name=INPUT)]
    return tf.function(converted, autograph=False, input_signature=signature)


def _write_savedmodel(features: Function, path: Path) -> None:
    tf = _tensorflow()
    module = tf.Module()
    module.features = tensorflow_function(features, None)
    try:
        tf.saved_model.save(module, path, signatures=module.features.get_concrete_function())
    except tf.errors.OpError as e:  # a full disk is no OSError to TensorFlow
        raise OSError(errno.EIO, f"TensorFlow cannot write it: {' '.join(str(e).split())}") from e
    _name_by_content(path / "fingerprint.pb")


def _name_by_content(fingerprint: Path) -> None:
    """Put a UUID of a SavedModel's own hashes in place of the random one that TensorFlow draws."""
    from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

    found = FingerprintDef.FromString(fingerprint.read_bytes())
    found.uuid = ""
    found.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, str(found)).int)
    fingerprint.write_bytes(found.SerializeToString(deterministic=True))


def _load_savedmodel(path: Path) -> Run:
    tf = _tensorflow()
    # Restored functions need the module alive.
    module = tf.saved_model.load(path)
    return lambda images: module.features(images).numpy()


def tflite_bytes(features: Function, batch: int | None) -> bytes:
    """Return `features` as a TFLite flatbuffer, for one batch size or any (None)."""
    tf = _tensorflow()
    concrete = tensorflow_function(features, batch).get_concrete_function()
    with _one_line_if_unreadable():
        flatbuffer: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
        return flatbuffer


def _write_tflite(features: Function, path: Path) -> None:
    path.write_bytes(tflite_bytes(features, None))


def _load_tflite(path: Path) -> Run:
    tf = _tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is to move to another package
        interpreter = tf.lite.Interpreter(str(path))
    (image,), (feature,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(image["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        features: np.ndarray = interpreter.get_tensor(feature["index"])
        return features

    return run


FORMATS: Mapping[str, tuple[Callable[[Function, Path], None], Callable[[Path], Run]]] = {
    "savedmodel": (_write_savedmodel, _load_savedmodel),
    "tflite": (_write_tflite, _load_tflite),
    "stablehlo": (_write_stablehlo, _load_stablehlo),
}
