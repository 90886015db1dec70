"""Gallery: known faces in a folder, and the nearest of them to a face that is asked about."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.gallery import approximate
from uniface_jax.gallery.candidates import METHODS, by_query, candidates_of
from uniface_jax.gallery.changes import read_removed, sweep, write_removed, writing
from uniface_jax.gallery.exact import nearest_of
from uniface_jax.gallery.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from uniface_jax.gallery.rows import (
    BLOCK,
    Blocks,
    Row,
    alive,
    expect_directions,
    feature_rows,
    numbered,
    plain_rows,
    row_of,
    split,
)
from uniface_jax.gallery.segment import StaleError, open_segment, write_segment
from uniface_jax.inference.feature_rows import FeatureRows
from uniface_jax.native import nearest

_OPENINGS = 100  # tries, while a writer swaps manifests


@dataclass(frozen=True)
class Answers:
    """Nearest rows of Q queries: ids int64 [Q, K] and cosines float64 [Q, K], the nearest first."""

    ids: np.ndarray
    cosines: np.ndarray


class Gallery:
    """Features of known faces, in a folder that many may read and one may change at a time.

    What is open is one state: changes by other processes are seen when it is opened again. A change
    by `add`, `remove` or `merge` of this object is seen at once.

    Args:
        folder: what `build` has made.

    Raises:
        UserError: there is no gallery, or a file of it is damaged; the message names the file.

    Example:
        >>> import tempfile
        >>> features = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gallery = Gallery.build(f"{folder}/g", features, ["ann", "bob", "cem"])
        ...     answers = gallery.search(np.array([[2.0, 0.5]]), k=2)
        ...     [gallery.row(id).name for id in answers.ids[0]]
        ['ann', 'cem']
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open()

    @classmethod
    def build(
        cls,
        folder: str | Path,
        features: np.ndarray,
        names: Sequence[str],
        people: Sequence[str | None] | None = None,
        model: Mapping[str, str] | None = None,
    ) -> "Gallery":
        """Make a gallery of features [N, D], with a name each and perhaps a person.

        Ids are 0 to N - 1. model: name, sha256 and description of what has computed them. Raises
        UserError where there is a gallery already, and for features that have no direction.
        """
        rows = plain_rows(features, names, people)
        return cls.create(folder, rows.features.shape[1], model).add(split(rows), len(rows))

    @classmethod
    def create(
        cls, folder: str | Path, width: int, model: Mapping[str, str] | None = None
    ) -> "Gallery":
        """Make an empty gallery for features of `width` numbers; see build."""
        if not 1 <= width <= nearest.MAX_WIDTH:
            raise UserError(f"{folder}: features of {width} numbers; at most {nearest.MAX_WIDTH}")
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        with writing(path):
            if (path / MANIFEST).exists():
                raise UserError(f"{path}: a gallery is there already; add takes more faces into it")
            write_manifest(path, Manifest(width, model=None if model is None else dict(model)))
        return cls(path)

    def __len__(self) -> int:
        return self.manifest.rows

    def add(self, blocks: Blocks, count: int, source: str = "") -> "Gallery":
        """Add `count` rows, which come in blocks, under the next ids; return this gallery.

        source: where embed has read the photographs, for who draws them. Raises UserError for
        features of another width, or without a direction, and for another number of rows.
        """
        with writing(self.folder):
            before = read_manifest(self.folder)
            entry = None
            if count:
                with_ids = numbered(blocks, count, before)
                try:
                    entry = write_segment(self.folder, with_ids, count, source)
                except BaseException:
                    sweep(self.folder, before)
                    raise
            if entry is not None:
                after = before.changed(
                    segments=(*before.segments, entry), next_id=before.next_id + count
                )
                write_manifest(self.folder, after)
                sweep(self.folder, after)
        self._open()
        return self

    def remove(self, chosen: Callable[[Row], bool] | Iterable[int]) -> int:
        """Let rows no longer count; return how many.

        chosen: their ids, or a function that is True for them. Raises UserError for an id that no
        row has.
        """
        with writing(self.folder):
            self._open()
            if callable(chosen):
                ids = np.array([row.id for row in self.rows() if chosen(row)], np.int64)
            else:
                ids = np.unique(np.fromiter(chosen, np.int64))
                missing = np.setdiff1d(ids, self._ids())
                if len(missing):
                    raise UserError(f"{self.folder}: no row has the id {missing[0]}")
            if len(ids):
                after = self.manifest.changed(
                    removed=write_removed(self.folder, np.union1d(self._removed, ids))
                )
                write_manifest(self.folder, after)
                sweep(self.folder, after)
        self._open()
        return len(ids)

    def merge(self, others: Sequence["Gallery"] = ()) -> "Gallery":
        """Take the rows of other galleries, under new ids, and make one segment of all.

        Removed rows are gone from the disk then. Raises UserError for a gallery of another width or
        another model.
        """
        for other in others:
            self.expect_model(other.manifest.model, str(other.folder))
            if other.manifest.width != self.manifest.width:
                raise UserError(
                    f"{other.folder}: features of {other.manifest.width} numbers; expected "
                    f"{self.manifest.width}, as in {self.folder}"
                )
        with writing(self.folder):
            self._open()
            count = len(self) + sum(map(len, others))
            next_id = self.manifest.next_id + sum(map(len, others))
            sources = {each.entry.source for g in (self, *others) for each in g.segments}
            source = sources.pop() if len(sources) == 1 else ""
            blocks = self._merged(others)
            entry = write_segment(self.folder, blocks, count, source) if count else None
            after = self.manifest.changed(
                segments=() if entry is None else (entry,), removed=None, next_id=next_id
            )
            write_manifest(self.folder, after)
            sweep(self.folder, after)
        self._open()
        return self

    def index(self) -> list[Mapping[str, float]]:
        """Build what approximate search goes by, and return the recall of each segment's.

        It lies beside each segment, and stays until the segment is merged. Raises
        UserError where FAISS, the extra `faiss`, is not installed.
        """
        with writing(self.folder):
            self._open()
            return [
                approximate.measured_recall(segment, approximate.build_index(segment))
                for segment in self.segments
            ]

    def search(self, queries: np.ndarray, k: int = 1, method: str = "int8") -> Answers:
        """Find the k nearest rows of each query [Q, D], by their cosines.

        The answers are those of exact arithmetic on the features as they were given, rounded to
        float64; rows of the same cosine come in the order of their ids. method: "int8" goes over
        codes, "float32" over the features, and both answer the same. "approximate" may miss
        rows of what `index` was made of, and then answers with others or, behind, with the id -1.

        Args:
            queries: not normalized.
            k: 1 or more; a gallery of fewer rows answers with all of them.
            method: of METHODS.

        Raises:
            UserError: another shape, k or method; a query without a direction.
        """
        queries = np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != self.manifest.width:
            raise UserError(
                f"queries {list(queries.shape)}: expected [Q, {self.manifest.width}], as the rows "
                f"of {self.folder}"
            )
        if k < 1:
            raise UserError(f"k={k}: expected at least 1")
        if method not in METHODS:
            raise UserError(f"method={method}: expected one of {', '.join(METHODS)}")
        queries = queries.astype(np.float64)
        expect_directions(queries, lambda i: f"query {i}")
        k = min(k, len(self))
        if not k or not len(queries):
            return Answers(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k)))
        units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        parts = [candidates_of(segment, units, k, method) for segment in self.segments]
        return self._ranked(queries, parts, k)

    def row(self, id: int) -> Row:
        """Return what is known of the row of an id; UserError where no row has it."""
        for segment in self.segments:
            place = int(np.searchsorted(segment.ids, id))
            if place < len(segment.ids) and segment.ids[place] == id:
                if np.isnan(segment.codes.errors[place]):
                    break
                return row_of(segment, place)
        raise UserError(f"{self.folder}: no row has the id {id}")

    def rows(self) -> Iterator[Row]:
        """Yield all rows that count."""
        for segment in self.segments:
            for place in alive(segment).tolist():
                yield row_of(segment, place)

    def expect_model(self, model: Mapping[str, str] | None, name: str) -> None:
        """Raise UserError, which begins with `name`, for features of another model."""
        own = self.manifest.model
        if own and model and own.get("sha256") != model.get("sha256"):
            raise UserError(
                f"{name}: features of the model {model.get('name')}; those of {self.folder} are of "
                f"{own.get('name')}, another one"
            )

    def _open(self) -> None:
        """Open the newest state; again where a writer has removed its files meanwhile."""
        for _ in range(_OPENINGS):
            manifest = read_manifest(self.folder)
            try:
                removed = read_removed(self.folder, manifest)
                self.segments = [
                    open_segment(self.folder, entry, manifest.width, removed)
                    for entry in manifest.segments
                ]
            except (StaleError, FileNotFoundError) as e:
                if read_manifest(self.folder).generation == manifest.generation:
                    raise UserError(f"{e}: missing; build the gallery again") from e
                continue
            self.manifest, self._removed = manifest, removed
            return
        raise UserError(f"{self.folder}: changes faster than it can be opened")

    def _ranked(self, queries: np.ndarray, parts: Sequence[nearest.Candidates], k: int) -> Answers:
        """Return the k nearest of the candidates of all segments, by exact cosines."""
        best = nearest.joined(list(parts), k).best[:, -1]
        ids, cosines = (
            np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf)
        )  # fmt: skip
        places_by_query = [by_query(part, best, len(queries)) for part in parts]
        for number, query in enumerate(queries):
            rows, of_rows = [], []
            for segment, places in zip(self.segments, places_by_query, strict=True):
                rows.append(segment.rows(places[number]))
                of_rows.append(segment.ids[places[number]])
            near = nearest_of(query, np.concatenate(rows), np.concatenate(of_rows), k)
            count = len(near[0])
            ids[number, :count], cosines[number, :count] = near
        return Answers(ids, cosines)

    def _ids(self) -> np.ndarray:
        parts = [segment.ids[alive(segment)] for segment in self.segments]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _merged(self, others: Sequence["Gallery"]) -> Iterator[tuple[FeatureRows, np.ndarray]]:
        next_id = self.manifest.next_id
        for gallery in (self, *others):
            segments = sorted(gallery.segments, key=lambda segment: int(segment.ids[0]))
            for segment in segments:
                places = alive(segment)
                for start in range(0, len(places), BLOCK):
                    some = places[start : start + BLOCK]
                    ids = segment.ids[some]
                    if gallery is not self:
                        ids = np.arange(next_id, next_id + len(some))
                        next_id += len(some)
                    yield feature_rows(segment, some), ids
