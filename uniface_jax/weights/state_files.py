"""PyTorch state dicts in files: .pth, .pt and .tar, .safetensors and .npz, to named numpy arrays.

Such files come from the internet. Nothing in them runs: PyTorch's own format is a pickle, and is
read by PyTorch alone, with weights_only. Declared sizes are compared with the file's before memory
is taken.
"""

import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing
from uniface_jax.files.reading import open_regular
from uniface_jax.weights import pickled_module

State = dict[str, np.ndarray]

# .tar is what UniFace's train.py calls its checkpoints; they are no tar archives.
SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".npz")
# Where training scripts keep the state dict: UniFace's release (train.py), arcface_torch
# (train_v2.py), others.
WRAPPERS = ("state_dict", "state_dict_backbone", "model_state_dict")
ARCFACE_HEAD = "state_dict_softmax_fc"  # beside arcface_torch's backbone: its Partial FC
MAX_DEPTH = 4  # of dicts in dicts
MIN_TORCH = (2, 6)  # before it, weights_only could be led to run code (CVE-2025-32434)
MAX_EXPANSION = 20  # of a compressed file; weights hardly compress

_NO_TORCH = (
    "reading it needs PyTorch 2.6 or newer: pip install torch --index-url "
    "https://download.pytorch.org/whl/cpu (or save the state dict as .safetensors where PyTorch is)"
)


def read_state(path: Path) -> State:
    """Read the tensors of a file by name; bfloat16 comes as float32, other types as they are.

    Args:
        path: its suffix is one of SUFFIXES. A checkpoint that wraps its state dict is unwrapped by
            WRAPPERS, with arcface_torch's head beside it, one of dicts in dicts has names of all
            their keys, and a whole module that UniFace's release saved becomes its state dict.

    Raises:
        UserError: names the file for another suffix, a missing or damaged file, a .pth that holds
            anything else than tensors and plain values, and a .pth where PyTorch is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "weights.safetensors"
        ...     write_safetensors(path, {"fc.weight": np.ones((2, 3), np.float32)}, {})
        ...     {name: array.shape for name, array in read_state(path).items()}
        {'fc.weight': (2, 3)}
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: cannot be weights by its suffix; allowed are {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    read = {".safetensors": _read_safetensors, ".npz": _read_npz}.get(path.suffix, _read_torch)
    try:
        state = read(path)
    except UserError:
        raise
    except Exception as e:  # damage comes as any exception of zip, pickle, numpy or Rust
        raise UserError(f"{path}: cannot be read as {path.suffix} weights ({_line(e)})") from e
    if not state:
        raise UserError(f"{path}: holds no tensor")
    return state


def write_safetensors(
    path: Path, state: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write the tensors, atomically; `metadata` goes into the file's header.

    The same tensors and metadata give the same bytes.
    """
    from safetensors.numpy import save

    # Not its save_file, for which a full disk is no OSError.
    content = save({k: np.ascontiguousarray(v) for k, v in state.items()}, dict(metadata))
    length = int.from_bytes(content[:8], "little")
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content[:8])
        file.write(_with_sorted_metadata(content[8 : 8 + length]))
        file.write(memoryview(content)[8 + length :])


def _with_sorted_metadata(header: bytes) -> bytes:
    """Return a header with its metadata in alphabetical order; safetensors leaves it in any.

    It is JSON, padded with blanks: its length stays.
    """
    values = json.loads(header)
    if "__metadata__" in values:
        values["__metadata__"] = dict(sorted(values["__metadata__"].items()))
    content = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
    if len(content) > len(header):
        raise ValueError(f"a header of {len(content)} bytes in place of {len(header)}")
    return content.ljust(len(header))


def _read_safetensors(path: Path) -> State:
    from safetensors.numpy import load_file

    return {name: _widened(array) for name, array in load_file(path).items()}


def _read_npz(path: Path) -> State:
    _check_npz(path)
    with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _check_npz(path: Path) -> None:
    """Check that the archive's members declare no more than the file can hold."""
    limit = MAX_EXPANSION * path.stat().st_size
    total = 0
    with open_regular(path) as opened, zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                major, _ = np.lib.format.read_magic(file)
                read_header = {
                    1: np.lib.format.read_array_header_1_0,
                    2: np.lib.format.read_array_header_2_0,
                }[major]
                shape, _, dtype = read_header(file)
            size = math.prod(shape) * dtype.itemsize
            total += max(size, member.file_size)
            if size > member.file_size or total > limit:
                raise UserError(
                    f"{path}: {member.filename} declares {shape} {dtype} in {member.file_size} "
                    f"bytes, {total} bytes in all so far; allowed are {limit} for this file"
                )


def _read_torch(path: Path) -> State:
    try:
        import torch
    except ImportError as e:
        raise UserError(f"{path}: {_NO_TORCH}") from e
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise UserError(f"{path}: found PyTorch {torch.__version__}; {_NO_TORCH}")
    if zipfile.is_zipfile(path):
        with open_regular(path) as opened, zipfile.ZipFile(opened) as archive:
            # PyTorch stores; what is compressed could unfold to any size.
            if any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist()):
                raise UserError(f"{path}: compressed, which PyTorch's files never are")
    else:
        with open_regular(path) as file:
            if file.read(2) == b"PK":
                raise ValueError("cut short: a zip archive without its end")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, on what it makes of others' files
        state = _unwrapped(path, pickled_module.load(path, torch))
        return {name: _from_torch(path, name, tensor, torch) for name, tensor in state.items()}


def _unwrapped(path: Path, loaded: Any) -> Mapping[str, Any]:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(inner := loaded.get(key), Mapping):
            head = loaded.get(ARCFACE_HEAD)
            beside = head if isinstance(head, Mapping) else {}
            return {**inner, **{f"{ARCFACE_HEAD}.{name}": value for name, value in beside.items()}}
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return _flattened(loaded) if any(isinstance(v, Mapping) for v in loaded.values()) else loaded


def _flattened(loaded: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the tensors of dicts in dicts by all keys on the way, and nothing else of them.

    Training scripts keep networks, averaged copies and optimizers so.
    """
    found = {}
    seen, waiting = {id(loaded)}, [("", 0, loaded)]
    while waiting:
        prefix, depth, mapping = waiting.pop()
        for key, value in mapping.items():
            if isinstance(value, Mapping):
                if id(value) not in seen and depth < MAX_DEPTH:
                    seen.add(id(value))
                    waiting.append((f"{prefix}{key}.", depth + 1, value))
            elif hasattr(value, "dtype"):
                found[f"{prefix}{key}"] = value
    return found


def _from_torch(path: Path, name: Any, tensor: Any, torch: Any) -> np.ndarray:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise UserError(
            f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor; expected a state dict, "
            f"or one under {', '.join(WRAPPERS)}"
        )
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    array: np.ndarray = wide.detach().numpy()
    return array


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _line(error: Exception, most: int = 160) -> str:
    """Return an exception's message as one short line; PyTorch's are pages of advice."""
    return " ".join(str(error).split())[:most] or type(error).__name__
