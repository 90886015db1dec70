"""ONNX files that anyone may have written: read whole, with the weights that lie beside them.

Exporters keep large weights in a second file, which the model names: today's torch.onnx.export does
by default. Such names are a way to any file of this machine, so they are followed only from the
initializers of the main graph, and only to regular files below the model's own folder, without
links. onnxruntime is given all weights in memory and opens no file itself.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_regular

MAX_FILE_BYTES = (1 << 31) - 1  # protobuf's own limit, of a model with all its weights inside
_JOIN = "(to join them: onnx.save(onnx.load(MODEL), JOINED))"


@dataclass(frozen=True)
class OnnxFile:
    """A model with its weights inside. digest: SHA-256, hexadecimal, of every file it came from."""

    model: onnx.ModelProto
    digest: str


def read_onnx(path: Path) -> OnnxFile:
    """Read the model at `path`, and the weights that it keeps in files beside it.

    The digest is that of the file alone where it keeps all inside. Inputs that no node reads, as
    quantizers leave them, are taken out.

    Raises:
        UserError: names the file when it is no ONNX model, is too large, or wants weights from
            where none are read.
    """
    content = _read(path, str(path), MAX_FILE_BYTES)
    model = _parse(path, content)
    digest = hashlib.sha256(content)
    for name, content_digest in _take_in(path, model, MAX_FILE_BYTES - len(content)).items():
        digest.update(f"\0{name}\0".encode() + content_digest)
    # onnxruntime would ask for them.
    read = {name for node in model.graph.node for name in node.input}
    for i in reversed(range(len(model.graph.input))):
        if model.graph.input[i].name not in read:
            del model.graph.input[i]
    return OnnxFile(model, digest.hexdigest())


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor: the main graph's initializers first, then of nodes and subgraphs."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        else:
            for attribute in nodes.pop().attribute:
                graphs += [attribute.g, *attribute.graphs]
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return True where a tensor's values are to come from another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def _read(path: Path, name: str, most: int) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes; UserError by `name` if not."""
    try:
        return read_regular(path, most)
    except OSError as e:
        raise UserError(f"{name}: cannot be read ({e.strerror})") from e


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except Exception as e:  # protobuf's DecodeError, which has no public home
        raise UserError(f"{path}: not an ONNX model ({' '.join(str(e).split())[:300]})") from e
    if not model.graph.node:
        raise UserError(f"{path}: not an ONNX model, or one without nodes ({len(content)} bytes)")
    return model


def _take_in(path: Path, model: onnx.ModelProto, most: int) -> Mapping[str, bytes]:
    """Fill the external initializers of `model` in place, with `most` bytes at most.

    Return the SHA-256 of each file that was read, by its name. Raises UserError for an external
    tensor anywhere else, and for a place outside of the model's folder.
    """
    for tensor in itertools.islice(tensors(model), len(model.graph.initializer), None):
        if is_external(tensor):
            raise UserError(
                f"{path}: tensor {tensor.name or 'of a node'} is to be read from "
                f"{_location(tensor)!r}; expected only weights (initializers) in other files"
            )
    files: dict[str, bytes] = {}
    for tensor in model.graph.initializer:
        if is_external(tensor):
            name = _location(tensor)
            if name not in files:
                where = f"{path}: weight {tensor.name} in {name!r} {_JOIN}"
                files[name] = _read(_beside(path, tensor), where, most)
            part = _part(path, tensor, files[name])
            most -= len(part)
            if most < 0:
                raise UserError(f"{path}: its weights are over {MAX_FILE_BYTES} bytes in all")
            tensor.raw_data = part
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return {name: hashlib.sha256(content).digest() for name, content in sorted(files.items())}


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _beside(path: Path, tensor: onnx.TensorProto) -> Path:
    """Return the file of an external weight, which lies below the model's folder without links."""
    name = PurePosixPath(_location(tensor))
    found = path.parent.resolve() / name
    inside = name.parts and not name.is_absolute() and ".." not in name.parts
    if not inside or "\0" in str(name) or found.resolve() != found:
        raise UserError(
            f"{path}: weight {tensor.name} is to be read from {str(name)!r}; expected a file "
            f"beside the model, without links, '..' or an absolute path {_JOIN}"
        )
    return found


def _part(path: Path, tensor: onnx.TensorProto, content: bytes) -> bytes:
    """Return the bytes of an external weight out of its file's."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(where.get("offset", 0))
        length = int(where.get("length", len(content) - offset))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > len(content):
        raise UserError(
            f"{path}: weight {tensor.name} is at byte {where.get('offset', '0')!s:.30}, "
            f"{where.get('length', 'all')!s:.30} long, of {where['location']!r}, which has "
            f"{len(content)} bytes"
        )
    return content[offset : offset + length]
