"""Approximate search, for galleries beyond what exact search answers in time: FAISS's HNSW.

A segment may have a file .index beside its others: a graph over its rows, coded in 8 bits. What it
finds is ranked by exact cosines, so that a row may be missed, but none has a wrong cosine. How many
are missed is measured when it is built, on the segment's own rows against exact search.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError, extra
from uniface_jax.files.atomic import replacing
from uniface_jax.files.own_folder import KnownDigests, own_folder_if_trusted
from uniface_jax.files.reading import read_regular
from uniface_jax.gallery.segment import Segment
from uniface_jax.native import nearest

INDEX = "index"
NEIGHBORS = 10  # of which recall is measured
_KIND = "HNSW32_SQ8"
_CONSTRUCTION, _SEARCH = 80, 128  # how many rows HNSW keeps in sight
_ASKED = 4  # times k, of which the exactly nearest are answers
_QUERIES = 200
_BLOCK = 1 << 14  # rows


def index_file(segment: Segment) -> Path:
    """Return the file of a segment's index, whether it is there or not."""
    return segment.folder / f"{segment.entry.stem}.{INDEX}"


def build_index(segment: Segment) -> Any:
    """Write the index of a segment's rows, and return it.

    Raises UserError where FAISS is not installed.
    """
    with extra("faiss"):
        import faiss
    width = segment.features.shape[1]
    index: Any = faiss.index_factory(width, _KIND, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _CONSTRUCTION
    index.train(_units(segment, 0, _BLOCK))
    for start in range(0, len(segment.ids), _BLOCK):
        index.add(_units(segment, start, start + _BLOCK))
    content = faiss.serialize_index(index).tobytes()
    with replacing(index_file(segment)) as temporary:
        temporary.write_bytes(content)
    _known().add(hashlib.sha256(content).hexdigest())
    return index


def read_index(segment: Segment) -> Any | None:
    """Return a segment's index; None where it has none.

    Raises:
        UserError: it was built by another user: FAISS trusts what it reads.
    """
    try:
        content = read_regular(index_file(segment))
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() not in _known():
        raise UserError(
            f"{index_file(segment)}: not built by this user, or changed since; python -m "
            "uniface_jax.gallery index builds it again, and --method=int8 needs none"
        )
    with extra("faiss"):
        import faiss
    return faiss.deserialize_index(np.frombuffer(content, np.uint8))


def indexed_candidates(segment: Segment, index: Any, units: np.ndarray, k: int) -> np.ndarray:
    """Return places of rows that the index finds near unit vectors [Q, D]: int64 [Q, <= 4 k].

    -1 stands for none; rows that were removed are among them.
    """
    index.hnsw.efSearch = max(_SEARCH, _ASKED * k)
    count = min(_ASKED * k, len(segment.ids))
    return np.asarray(index.search(units.astype(np.float32), count)[1], np.int64)


def measured_recall(segment: Segment, index: Any) -> Mapping[str, float]:
    """Return which share of the true nearest the index finds, for some of the segment's rows.

    A row is asked about as it is; itself, which any index finds, does not count.
    """
    places = np.unique(np.linspace(0, len(segment.ids) - 1, _QUERIES).astype(np.int64))
    units = np.stack([_units(segment, place, place + 1)[0] for place in places.tolist()])
    units = units.astype(np.float64)
    k = min(NEIGHBORS + 1, len(segment.ids))
    exact = nearest.candidates(segment.codes, nearest.Queries.of(units), k)
    near = indexed_candidates(segment, index, units, k)
    found = asked = 0
    for number, place in enumerate(places.tolist()):
        rows = exact.rows[exact.queries == number]
        order = np.argsort(-(segment.rows(rows) @ units[number]) / _lengths(segment, rows))
        true = set(rows[order][:k].tolist()) - {place}
        found, asked = found + len(true & set(near[number].tolist())), asked + len(true)
    return {"recall": found / max(asked, 1), "neighbors": k - 1, "queries": len(places)}


def _lengths(segment: Segment, places: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(segment.features[places].astype(np.float64), axis=1)
    return lengths


def _units(segment: Segment, start: int, end: int) -> np.ndarray:
    rows: np.ndarray = np.asarray(segment.features[start:end], np.float64)
    units: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units.astype(np.float32)


def _known() -> KnownDigests:
    return KnownDigests(own_folder_if_trusted("galleries"))
