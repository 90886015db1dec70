"""Features of image sets: embedded once and kept in array files, or given by the user.

Files are memory-mapped: a million features need no memory.
"""

import contextlib
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

import numpy as np
from tqdm import tqdm

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.evaluate.kept_features import (
    FeatureCache,
    GrowingRows,
    Record,
    check_rows,
    read_record,
)
from uniface_jax.evaluate.sets.image_sets import Digest, ImageSet
from uniface_jax.files.own_folder import KnownDigests
from uniface_jax.files.reading import expect_regular
from uniface_jax.files.text_lines import numbered_lines
from uniface_jax.inference.extract import check_features, extract_batches
from uniface_jax.inference.model import Model, QualityHead
from uniface_jax.inference.scale_probe import some_of

SUM, APART = "features", "features apart"  # f(x) + f(mirror) in one; f(x) and f(mirror) as [N, 2D]
_ROWS_COMPARED = 1024
_SAME = 1e-6  # of a feature's largest number: the rounding of float32


@dataclass(frozen=True, eq=False)
class Features:
    """Features of an image set.

    values: float [N, D], perhaps memory-mapped. plain: without the mirror, where it is known.
    record: for metrics.json, the data's digest and where the features come from.
    """

    values: np.ndarray
    plain: np.ndarray | None
    record: Mapping[str, Any]


class FeatureSource(Protocol):
    """Gives the features of an image set."""

    @property
    def name(self) -> str:
        """Return the name of the model in tables."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256, hexadecimal, of the model or of the given features."""
        ...

    @property
    def description(self) -> str:
        """One line on the model, or on where the features come from."""
        ...

    @property
    def quality(self) -> QualityHead | None:
        """Head that says the qualities of the features it gives; None where there is none."""
        ...

    def features(
        self, images: ImageSet, *, apart: bool = False, listed: np.ndarray | None = None
    ) -> Features:
        """Return the features of all images, in their order.

        apart: also without the mirrored images, where the model can. listed: int [L], for sets
        whose files list an image several times, the image that each entry of the list is. Raises
        UserError naming an image, or an array, that cannot be used.
        """
        ...


class ComputedFeatures:
    """Features that a model computes, kept in the folder of a cache."""

    def __init__(
        self, model: Model, cache: FeatureCache | Path, batch_size: int, files: Digest
    ) -> None:
        """Take a folder for a cache that knows nothing of what lies in it."""
        self.name, self.hash, self.description = model.name, model.hash, model.description
        self.quality = model.quality
        self._model, self.batch_size, self._files = model, batch_size, files
        self._cache = (
            cache if isinstance(cache, FeatureCache) else FeatureCache(cache, KnownDigests(None))
        )

    def features(
        self, images: ImageSet, *, apart: bool = False, listed: np.ndarray | None = None
    ) -> Features:
        """Return the features of all images; compute those that are not kept yet."""
        return computed_features([self], images, apart=apart)[0]

    def begin(self, images: ImageSet, apart: bool) -> "_Rows":
        """Return where the features are kept, and the array where it is there already."""
        digest = images.digest(self._files)
        self._settle(images)
        record = Record(
            APART if apart and self._model.plain is not None else SUM,
            {
                "name": self.name,
                "sha256": self._hash_for(images),
                "description": self.description,
            },
            {"name": images.name, "sha256": digest, "images": len(images)},
        )
        file = self._cache.file_of(record)
        return _Rows(self, record, file, self._cache.taken(file, record))

    def grow(self, rows: "_Rows") -> GrowingRows:
        """Return those rows that are there of features that are not all kept."""
        return self._cache.growing(rows.file, rows.record)

    def embed(self, kind: str, *inputs: np.ndarray) -> np.ndarray:
        """Return a batch's features, float32 [B, D], of images and their landmarks."""
        embed = self._model.embed_apart if kind == APART else self._model.embed
        return np.asarray(embed(*inputs[: 1 + self.takes_landmarks]), np.float32)

    @property
    def takes_landmarks(self) -> bool:
        """Return True where the model takes the landmarks of each image too."""
        return self._model.takes_landmarks

    def _hash_for(self, images: ImageSet) -> str:
        """Return the model's digest, with that of the images' landmarks where it takes them."""
        if not self._model.takes_landmarks:
            return self.hash
        total = hashlib.sha256(self.hash.encode())
        for index in range(len(images)):
            total.update(images.landmarks(index).astype("<f4").tobytes())
        return total.hexdigest()

    def _settle(self, images: ImageSet) -> None:
        """Let the first set's faces tell the model's input, where its file does not."""
        if self._model.settle is None:
            return
        faces = np.stack([images.pixels(i) for i in some_of(len(images))])
        self._model = self._model.settled(faces)
        self.description = self._model.description
        for line in self._model.notes:
            cli.say(f"{self.name}: {line}")


@dataclass(eq=False)
class _Rows:
    """Features that a model gives a set: what they are, the file, and the array once it is whole.

    kept: while they are computed.
    """

    source: ComputedFeatures
    record: Record
    file: Path
    array: np.ndarray | None
    kept: GrowingRows | None = None


def computed_features(
    sources: Sequence[ComputedFeatures], images: ImageSet, *, apart: bool = False
) -> list[Features]:
    """Return the features that each of several models gives of all images, in their order.

    Those that are not kept yet are computed in one reading of the images; what an interrupted
    run has left is resumed, in a reading for each number of rows that are there. As many images
    are embedded at a time as the first model wants. apart: see FeatureSource.features.
    """
    if not len(images):
        raise UserError(f"{images.name}: no images to embed")
    begun = [source.begin(images, apart) for source in sources]
    missing = [rows for rows in begun if rows.array is None]
    file = begun[0].file
    try:
        with contextlib.ExitStack() as stack:
            for rows in missing:
                file = rows.file
                rows.kept = stack.enter_context(rows.source.grow(rows))
            for done in sorted({rows.kept.done for rows in missing if rows.kept}):
                _extract([rows for rows in missing if rows.kept and rows.kept.done == done], images)
    except OSError as e:
        raise UserError(f"{file}: cannot be written ({e.strerror})") from e
    return [_whole(rows, images) for rows in begun]


def _extract(group: Sequence[_Rows], images: ImageSet) -> None:
    """Compute the rows that are missing of features of which as many are there."""
    growing = [rows.kept for rows in group if rows.kept]
    widths: list[int] = []

    def inputs(index: int) -> tuple[np.ndarray, ...]:
        wanted = any(rows.source.takes_landmarks for rows in group)
        landmarks = (images.landmarks(index),) if wanted else ()
        return (images.pixels(index), *landmarks)

    def embed(*batch: np.ndarray) -> np.ndarray:
        found = [rows.source.embed(rows.record.kind, *batch) for rows in group]
        widths[:] = [each.shape[1] for each in found]
        return np.concatenate(found, axis=1) if len(found) > 1 else found[0]

    start, count = growing[0].done, len(images)
    batches = extract_batches(
        embed, inputs, count, group[0].source.batch_size, start=start, label=images.label
    )
    names = " and ".join(rows.source.name for rows in group)
    shown = sys.stderr.isatty()
    title = f"{names}: {images.name}"
    with tqdm(total=count, initial=start, desc=title, unit=" images", disable=not shown) as bar:
        for first, found in batches:
            parts = np.split(found, np.cumsum(widths)[:-1], axis=1)
            for kept, part in zip(growing, parts, strict=True):
                check_features(part, first, images.label)
                kept.append(part)
            bar.update(len(found))
    for rows, kept in zip(group, growing, strict=True):
        rows.array, rows.file = kept.finish(), kept.file


def _whole(rows: _Rows, images: ImageSet) -> Features:
    """Return the features of an array that has all rows."""
    assert rows.array is not None
    _warn_if_constant(rows.array, f"{rows.source.name}: {images.name}")
    kept = {"sha256": rows.record.data["sha256"], "features": str(rows.file)}
    return _features(rows.array, rows.record.kind == APART, kept)


@dataclass(frozen=True)
class GivenFeatures:
    """Features that somebody computed: arrays by set name, "" for any set, or folders of arrays.

    An array is a .npy of numbers, a row an image in the set's order, the mirror sum in it. Where a
    text file of the same name lies beside it (NAME.txt), each line names the row's image, and rows
    are looked up by these names. A folder is one that an earlier evaluation left: the array of the
    same data is taken.
    """

    paths: Mapping[str, Path]
    files: Digest
    name: str
    hash: str
    description: str
    quality: None = None

    @staticmethod
    def open(given: Mapping[str, Path], files: Digest) -> "GivenFeatures":
        """Open paths by set name; UserError naming the one that is not there."""
        total = hashlib.sha256()
        for path in given.values():
            if not path.exists():
                raise UserError(f"--embeddings: {path}: no such file or folder; expected a .npy")
            names = sorted(p.name for p in path.glob("*.npy")) if path.is_dir() else [path.name]
            if not names:
                raise UserError(f"--embeddings: {path}: no .npy file in this folder")
            total.update(files(path if path.is_dir() else path.parent, names).encode())
        name = _name_of(next(iter(given.values())))
        return GivenFeatures(given, files, name, total.hexdigest(), "features as given")

    def features(
        self, images: ImageSet, *, apart: bool = False, listed: np.ndarray | None = None
    ) -> Features:
        """Return the features of all images, in their order, by the array of their set.

        The array may have a row for each entry of `listed` instead.
        """
        path = self.paths.get(images.name, self.paths.get(""))
        if path is None:
            raise UserError(
                f"--embeddings: none for {images.name}, only for {', '.join(self.paths)}; "
                f"give {images.name}=FILE.npy"
            )
        kind = SUM
        if path.is_dir():
            path, kind = _kept(path, images.name, images.digest(self.files))
            check_rows(path, read_record(path.with_suffix(".json")))
        array = _opened(path)
        if array.ndim != 2 or array.dtype.kind != "f":
            shape = "x".join(map(str, array.shape))
            raise UserError(f"{path}: {array.dtype} {shape}; expected floats [images, features]")
        rows = self._rows(path, array, images, listed)
        chosen = array if rows is None else array[rows]
        _warn_if_constant(chosen, str(path))
        return _features(
            chosen, kind == APART, {"sha256": images.digest(self.files), "features": str(path)}
        )

    def _rows(
        self, path: Path, array: np.ndarray, images: ImageSet, listed: np.ndarray | None
    ) -> np.ndarray | None:
        """Return the row of each image, int [N]; None where rows are in order."""
        names = path.with_suffix(".txt")
        if names.is_file():
            return _rows_by_name(names, len(array), images)
        if listed is not None and len(array) == len(listed) != len(images):
            return np.unique(listed, return_index=True)[1]
        if len(array) != len(images):
            raise UserError(
                f"{path}: {len(array)} rows, but {images.name} has {len(images)} images; "
                "expected a row for each, in order"
            )
        return None


def _name_of(path: Path) -> str:
    """Return the name of given features: the model that was noted beside them, or the file."""
    beside = [path.with_suffix(".json")] if path.is_file() else sorted(path.glob("*.json"))
    for file in beside:
        with contextlib.suppress(UserError):
            return str(read_record(file)["model"]["name"])
    return path.resolve().stem


def _rows_by_name(names: Path, rows: int, images: ImageSet) -> np.ndarray:
    lines = [normalize("NFC", line.strip()) for _, line in numbered_lines(names)]
    if len(lines) != rows:
        raise UserError(
            f"{names}: {len(lines)} lines for {rows} rows of the array; expected as many"
        )
    row_of = {line: row for row, line in enumerate(lines)}
    found = np.empty(len(images), np.int64)
    for i in range(len(images)):
        label = images.label(i)
        parts = normalize("NFC", label).split("/")
        # The names may begin at any folder: root/s1/1.png, s1/1.png or 1.png.
        row = next(
            (row_of[n] for k in range(len(parts)) if (n := "/".join(parts[k:])) in row_of), None
        )
        if row is None:
            raise UserError(f"{names}: no line for {label}; expected the name of every image")
        found[i] = row
    return found


def _kept(folder: Path, name: str, digest: str) -> tuple[Path, str]:
    """Find the finished array of that data in an earlier evaluation's folder, and its kind."""
    found, damaged = {}, []
    for beside in sorted(folder.glob("*.json")):
        try:
            record = read_record(beside)
        except UserError as e:
            damaged.append(str(e))  # or some other file
            continue
        if record["data"]["sha256"] == digest and record["done"] == record["data"]["images"]:
            found[beside.with_suffix(".npy")] = record["kind"]
    if len(found) != 1:
        which = f": {', '.join(path.name for path in found)}; name one of them" if found else ""
        which = which or "".join(f"; {problem}" for problem in damaged[:1])
        raise UserError(f"{folder}: {len(found)} finished arrays for {name}{which}")
    return next(iter(found.items()))


def _opened(path: Path) -> np.ndarray:
    try:
        expect_regular(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
        return array
    except (OSError, ValueError, EOFError) as e:
        raise UserError(f"{path}: no array that can be read ({' '.join(str(e).split())})") from e


def _warn_if_constant(features: np.ndarray, name: str) -> None:
    """Print a warning where some of features [N, D], or all that there are, are the same."""
    some = np.asarray(features[:: max(1, len(features) // _ROWS_COMPARED)], np.float64)
    deviation = np.abs(some - some[:1]).max(initial=0)
    if len(some) > 1 and deviation <= _SAME * np.abs(some[0]).max(initial=0):
        cli.say(
            f"WARNING: {name}: the features of all images are the same: no number below says "
            "anything about faces"
        )


def _features(array: np.ndarray, apart: bool, record: Mapping[str, Any]) -> Features:
    if not apart:
        return Features(array, None, record)
    width = array.shape[1] // 2
    plain = array[:, :width]
    return Features(plain + array[:, width:], plain, record)
