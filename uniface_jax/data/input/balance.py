"""Balance between classes: how many images of each an epoch has, and where those of each class are.

Classes are read in chunks, so that a set takes a table of 4 bytes an image and 24 bytes a class,
and little beside it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from uniface_jax.data.input.order import Order
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError

NONE, CLASSES, SQUARE_ROOT = "none", "classes", "square_root"
BALANCES = (NONE, CLASSES, SQUARE_ROOT)
_CHUNK_RECORDS = 1 << 20
_Classes = Callable[[np.ndarray], np.ndarray]


def class_order(
    source: Source, ratios: Sequence[tuple[int, float]], balance: str, cap: int | None
) -> Order:
    """Return the order in which classes come up as `quotas` has it.

    Args:
        source: N images, N < 2^32.
        ratios: of each of its sets, one after the other, the images and how often they are seen.
        balance: one of BALANCES.
        cap: the most images of a class in an epoch; None for no limit.

    Raises:
        UserError: an image whose class is unknown cannot be read, or has none.
    """
    counts = np.zeros(source.num_classes, np.int64)
    seen = np.zeros(source.num_classes)
    ends = np.cumsum([images for images, _ in ratios])
    known = _read_once(source)
    for begin, classes in _chunks(source, known):
        for place, (images, ratio) in enumerate(ratios):
            first = max(int(ends[place]) - images - begin, 0)
            mine = classes[first : max(int(ends[place]) - begin, 0)]
            if len(mine):
                found = np.bincount(mine, minlength=source.num_classes)
                counts += found
                seen += ratio * found
    begins = np.concatenate([[0], np.cumsum(counts)])
    return Order(begins, quotas(counts, seen, balance, cap), _by_class(source, known, begins))


def quotas(counts: np.ndarray, seen: np.ndarray, balance: str, cap: int | None) -> np.ndarray:
    """Return how many images of each class an epoch has: int64 [C].

    As many as are seen without balance; the same of each class; or in proportion to the square root
    of a class's images. Together they are as many as without balance, but for rounding, and at
    least 1 of each class that has images, before `cap` leaves out what is beyond.

    Args:
        counts: int64 [C], the images of each class.
        seen: float [C], these times the ratios of their sets.
        balance: one of BALANCES.
        cap: the most images of a class in an epoch; None for no limit.

    Example:
        >>> counts = np.array([1, 4, 16, 0])
        >>> [quotas(counts, counts, each, None).tolist() for each in BALANCES]
        [[1, 4, 16, 0], [7, 7, 7, 0], [3, 6, 12, 0]]
        >>> quotas(counts, counts, "none", 5).tolist()
        [1, 4, 5, 0]
    """
    there = counts > 0
    ratio = np.divide(seen, counts, out=np.zeros(len(counts)), where=there)
    power = {NONE: 1.0, CLASSES: 0.0, SQUARE_ROOT: 0.5}[balance]
    wanted = np.where(there, counts**power * ratio, 0.0)
    found = np.maximum(np.rint(wanted * (seen.sum() / wanted.sum())), 1).astype(np.int64)
    if cap is not None:
        found = np.minimum(found, cap)
    return np.where(there, found, 0)


def _read_once(source: Source) -> _Classes:
    """Return source.classes; of a source that reads images for it, what they say, read now."""
    if type(source).classes is not Source.classes:
        return source.classes
    labels = source.classes(np.arange(len(source)))
    return lambda indices: labels[indices]


def _by_class(source: Source, known: _Classes, begins: np.ndarray) -> np.ndarray:
    """Return the records class by class, ascending in each: uint32 [N]."""
    table = np.empty(len(source), np.uint32)
    free = begins[:-1].copy()  # where the next image of each class goes
    for begin, classes in _chunks(source, known):
        order = np.argsort(classes, kind="stable")
        here, first, number = np.unique(classes[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(first, number)
        table[np.repeat(free[here], number) + rank] = begin + order
        free[here] += number
    return table


def _chunks(source: Source, known: _Classes) -> Iterator[tuple[int, np.ndarray]]:
    """Yield where each chunk of records begins, and their classes."""
    for begin in range(0, len(source), _CHUNK_RECORDS):
        classes = known(np.arange(begin, min(begin + _CHUNK_RECORDS, len(source))))
        wrong = np.flatnonzero((classes < 0) | (classes >= source.num_classes))
        if len(wrong):
            raise UserError(
                f"{source.name}: record {begin + wrong[0]} has the label {classes[wrong[0]]}, "
                f"expected 0..{source.num_classes - 1}"
            )
        yield begin, classes
