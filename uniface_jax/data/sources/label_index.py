"""Labels that stand in the records alone: read once, and kept in the user's own folder.

Such a container has to be read whole before anything is known of its classes, as balanced orders
need them. What was read is an array file there, int32, with the SHA-256 of the labels behind them;
its name is the digest of all that tells the container apart.
"""

import contextlib
import hashlib
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data.sources.base import Items
from uniface_jax.files.arrays import map_array, save_array
from uniface_jax.files.own_folder import own_folder_if_trusted

_FOLDER = "labels"
_LABEL = np.dtype("<i4")
_DIGEST_LABELS = hashlib.sha256().digest_size // _LABEL.itemsize
_SHOWN_RECORDS = 1 << 16  # with fewer, progress would flash by


def indexed_labels(key: str, items: Items, order: np.ndarray, name: str) -> np.ndarray:
    """Return the labels of all items, int32 [N]: those that are kept, or by reading the items.

    Where the folder is not to be trusted, or cannot be written to, nothing is kept.

    Args:
        key: hexadecimal; of another container, or of the same one changed, another.
        items: N of them, whose reading checks the labels.
        order: int64 [N], in which to read them: as they lie on the disk.
        name: what progress calls the container.

    Raises:
        UserError: an item cannot be read.
    """
    folder = own_folder_if_trusted(_FOLDER)
    file = None if folder is None else folder / f"{key}.npy"
    kept = None if file is None else _kept(file, len(items))
    if kept is not None:
        return kept
    labels = np.empty(len(items), _LABEL)
    hidden = len(items) < _SHOWN_RECORDS or not sys.stderr.isatty()
    for index in tqdm(order.tolist(), f"labels of {name}", unit=" records", disable=hidden):
        labels[index] = items[index].label
    if file is not None:
        with contextlib.suppress(OSError):  # a full disk: they are read again next time
            save_array(file, np.concatenate([labels, _digest(labels)]))
    return labels


def _kept(file: Path, count: int) -> np.ndarray | None:
    """Return the labels in a file, [count]; None where it has none, or a bit of it has changed."""
    found = map_array(file, _LABEL, count + _DIGEST_LABELS)
    if found is None or not np.array_equal(_digest(found[:count]), found[count:]):
        return None
    return found[:count]


def _digest(labels: np.ndarray) -> np.ndarray:
    """Return the SHA-256 of labels as eight numbers of their type."""
    return np.frombuffer(hashlib.sha256(labels.data).digest(), _LABEL)
