"""Cosines between features, and the most similar of a gallery, in tiles of bounded memory."""

import numpy as np

from uniface_jax.errors import UserError

TILE_QUERIES, TILE_ROWS = 1 << 9, 1 << 14  # of a tile of cosines: 32 MB in float32


def unit_vectors(features: np.ndarray) -> np.ndarray:
    """Return features [..., D] at length 1: float64 for float64, else float32; nan for zero ones.

    >>> unit_vectors(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    features = np.asarray(features)
    features = features.astype(np.result_type(features.dtype, np.float32), copy=False)
    with np.errstate(invalid="ignore"):
        # By the largest number first: squares of large ones are infinite in float32.
        scaled = features / np.abs(features).max(-1, keepdims=True)
        units: np.ndarray = scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
        return units


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine, -1..1, along the last axis of features [..., D]; others broadcast.

    Two features [D] give a number. similarity(a[:, None], b) compares all N with all M in one
    product of matrices: no array of N x M x D is made. A feature of length 0 gives nan.

    Example:
        >>> features = np.array([[1.0, 0.0], [3.0, 4.0]])
        >>> similarity(features[:, None], features)
        array([[1. , 0.6],
               [0.6, 1. ]])
    """
    a, b = unit_vectors(a), unit_vectors(b)
    cosines: np.ndarray
    if a.ndim == 3 and a.shape[1] == 1 and b.ndim == 2:
        cosines = a[:, 0] @ b.T
    elif b.ndim == 3 and b.shape[1] == 1 and a.ndim == 2:
        cosines = b[:, 0] @ a.T
    else:
        cosines = np.einsum("...d,...d->...", a, b)
    clipped: np.ndarray = np.clip(cosines, -1, 1)
    return clipped


def search(queries: np.ndarray, gallery: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Find the k most similar features of a gallery for each query.

    The gallery is gone through in tiles, in float32 for features in float32: memory is that of a
    tile, and of the results.

    Args:
        queries: features [N, D].
        gallery: features [M, D], which may be memory-mapped.
        k: how many, 1..M.

    Returns:
        Row numbers of the gallery, int64 [N, k], and cosines, float [N, k], the greatest first. The
        cosine with a feature of length 0 is -inf.

    Raises:
        UserError: arrays of other shapes, or k out of range.

    Example:
        >>> gallery = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
        >>> search(np.array([[1.0, 0.1]]), gallery, k=2)[0]
        array([[1, 2]])
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise UserError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)}: "
            "expected features [N, D] and [M, D]"
        )
    if not 1 <= k <= len(gallery):
        raise UserError(f"k={k}: expected 1 to {len(gallery)}, the size of the gallery")
    rows = np.empty((len(queries), k), np.int64)
    cosines = np.empty((len(queries), k), np.result_type(queries, gallery, np.float32))
    for start in range(0, len(queries), TILE_QUERIES):
        block = unit_vectors(queries[start : start + TILE_QUERIES])
        found = np.empty((len(block), 0), np.int64), np.empty((len(block), 0), cosines.dtype)
        for first in range(0, len(gallery), TILE_ROWS):
            tile = block @ unit_vectors(gallery[first : first + TILE_ROWS]).T
            tile[np.isnan(tile)] = -np.inf
            near = _nearest(tile, k)
            found = _merged(found, (near + first, np.take_along_axis(tile, near, 1)), k)
        rows[start : start + len(block)], cosines[start : start + len(block)] = found
    return rows, np.clip(cosines, -1, 1, where=np.isfinite(cosines), out=cosines)


def _nearest(cosines: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k greatest of each row, or of all where there are fewer."""
    if k >= cosines.shape[1]:
        return np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
    return np.argpartition(cosines, -k, axis=1)[:, -k:]


def _merged(
    found: tuple[np.ndarray, np.ndarray], more: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k greatest of both in falling order: rows and cosines."""
    rows, cosines = (np.concatenate(pair, axis=1) for pair in zip(found, more, strict=True))
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
