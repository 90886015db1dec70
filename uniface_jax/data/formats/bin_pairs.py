"""Verification sets: pairs of face images, same person or not, in insightface's .bin files.

HaiyuWu's .xz is such a file, packed.

A .bin (lfw, cfp_fp, agedb_30, …) is a pickle of (list of 2P encoded images, list of P booleans);
pair i is images 2i and 2i+1. It comes from the internet, so safe_pickle reads it as data.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.formats import safe_pickle
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing
from uniface_jax.files.reading import NotRegularError, open_regular

FOLDS = 10


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of images, P of them among K different images.

    Attributes:
        name: the file's name without its suffix.
        images: K encoded images, no two the same.
        first: int32 [P], indices into `images`.
        second: int32 [P], indices into `images`.
        same: bool [P], True where the two images show one person.
        numbers: int [K], each image's first number in the .bin, which counts two a pair, or None.
        names: K paths of a list's images, or None.
        folds: contiguous parts of the pairs for the accuracy by cross-validation.
    """

    name: str
    images: list[bytes]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    numbers: np.ndarray | None = None
    names: Sequence[str] | None = None
    folds: int = FOLDS

    def __len__(self) -> int:
        return len(self.same)

    def label(self, index: int) -> str:
        """Return what errors call an image: its path, or its place in the .bin."""
        if self.names is not None:
            return self.names[index]
        return f"image {index}" if self.numbers is None else _place(int(self.numbers[index]))


def looks_like_bin(file: Path) -> bool:
    """Return True where a file is a pickle, packed by xz or not, by its suffix or first bytes.

    Raises UserError where it is no regular file or cannot be read.
    """
    try:
        with open_regular(file) as opened:
            head = opened.read(len(safe_pickle.XZ_MAGIC))
            return (
                file.suffix == ".bin" or head[:1] in (b"\x80", b"(") or head == safe_pickle.XZ_MAGIC
            )
    except NotRegularError as e:
        raise UserError(f"{file}: not a file; expected pairs, as a .bin or as a list") from e
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e


def read_pairs(path: Path | str) -> PairSet:
    """Read a .bin written by Python 2 or 3, with images as bytes, str or uint8 numpy arrays.

    Images and marks may be lists or tuples, marks numpy's booleans as well, or an array of them. It
    may be packed by xz.

    Images are not decoded, and equal ones are kept once. Nothing in the file runs.

    Raises:
        UserError: the file holds anything but such a pickle, or no pair; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "two.bin"
        ...     write_pairs(file, [b"ann", b"bob"], first=[0, 0], second=[0, 1], same=[True, False])
        ...     pairs = read_pairs(file)
        >>> pairs.images, pairs.second.tolist(), pairs.same.tolist()
        ([b'ann', b'bob'], [0, 1], [True, False])
    """
    path = Path(path)
    value = safe_pickle.load(path)
    parts = [safe_pickle.items(part) for part in value] if isinstance(value, tuple | list) else []
    if [type(part) for part in parts] != [list, list]:
        raise UserError(f"{path}: expected a pickled (images, booleans), found another structure")
    encoded, same = parts
    if not same or len(encoded) != 2 * len(same):
        raise UserError(
            f"{path}: {len(encoded)} images for {len(same)} pairs; expected two a pair, and pairs"
        )
    images = list(map(safe_pickle.content, encoded))
    for i, image in enumerate(images):
        if not isinstance(image, bytes) or not image:
            raise UserError(
                f"{path}: image {i} is a {type(image).__name__}, expected encoded bytes"
            )
    for i, flag in enumerate(same):
        if not isinstance(flag, int) or flag not in (0, 1):
            raise UserError(
                f"{path}: pair {i} is marked by a {type(flag).__name__}, expected a bool"
            )
    return pair_set(path.stem, images, np.array(same, bool))


def pair_set(name: str, images: Sequence[bytes], same: np.ndarray) -> PairSet:
    """Return the pairs of images 2i and 2i + 1, equal ones kept once; same: bool [P]."""
    unique: dict[bytes, int] = {}
    indices = np.fromiter((unique.setdefault(image, len(unique)) for image in images), np.int32)
    numbers = np.unique(indices, return_index=True)[1]
    first, second = indices[0::2].copy(), indices[1::2].copy()
    return PairSet(name, list(unique), first, second, same, numbers)


def _place(number: int) -> str:
    """Return what an image is called by its number in the file."""
    return f"image {number} (pair {number // 2}, {'second' if number % 2 else 'first'})"


def write_pairs(
    path: Path | str,
    images: Sequence[bytes],
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
    same: Sequence[bool] | np.ndarray,
) -> None:
    """Write pairs of encoded images as insightface does, atomically.

    Each image is stored once, however many pairs it is in; insightface's own reader opens the file.

    Args:
        path: the .bin to write.
        images: encoded images.
        first: an index into `images` for each pair.
        second: an index into `images` for each pair.
        same: True where the two show one person.

    Raises:
        ValueError: first, second and same differ in length.
    """
    if not len(first) == len(second) == len(same):
        raise ValueError(f"{len(first)}, {len(second)} and {len(same)} entries; expected as many")
    encoded = [images[int(i)] for pair in zip(first, second, strict=True) for i in pair]
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        pickle.dump((encoded, [bool(s) for s in same]), file, protocol=4)
