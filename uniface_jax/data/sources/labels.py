"""Labels as sources have them, brought to 0..C-1."""

import re
from collections.abc import Sequence

import numpy as np


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts s2 before s10; names that differ in leading zeros keep a fixed order.

    Example:
        >>> sorted(["s10", "s2", "s02"], key=natural_key)
        ['s02', 's2', 's10']
    """
    key = []
    for i, part in enumerate(re.split(r"([0-9]+)", name)):
        digits = part.lstrip("0")  # compared by length and text: int() refuses thousands of digits
        key.append((1, len(digits), digits) if i % 2 else (0, 0, part))
    return key, name


def contiguous(
    labels: np.ndarray, declared: int | None = None
) -> tuple[np.ndarray, int, list[str] | None]:
    """Map integer labels to 0..C-1 by ascending value, where they are not that already.

    Args:
        labels: int64 [N], N >= 1.
        declared: the number of classes that the source itself states; labels that all lie below it
            stay as they are, even where a class has no image.

    Returns:
        The labels as int32 [N], C, and where they were mapped the C values as text, in the order of
        the new labels.

    Example:
        >>> contiguous(np.array([7, 3, 7]))
        (array([1, 0, 1], dtype=int32), 2, ['3', '7'])
    """
    if declared is not None and labels.min() >= 0 and labels.max() < declared:
        return labels.astype(np.int32), declared, None
    values, mapped = np.unique(labels, return_inverse=True)
    count = len(values)
    if values[0] == 0 and values[-1] == count - 1:
        return labels.astype(np.int32), count, None
    return mapped.astype(np.int32), count, [str(value) for value in values]


def classes_of(
    texts: Sequence[str], places: np.ndarray
) -> tuple[np.ndarray, list[str] | None, int]:
    """Return classes by labels as text: whole numbers by ascending value, others by natural order.

    Args:
        texts: the different labels.
        places: int [N], which of them each image has.

    Returns:
        The classes, int32 [N]; their names, or None where the labels are 0..C-1 already; and C.
    """
    numbers = _whole_numbers(texts)
    if numbers is not None:
        mapped, count, names = contiguous(numbers)
        return mapped[places], names, count
    names = sorted(texts, key=natural_key)
    positions = {name: i for i, name in enumerate(names)}
    return np.array([positions[text] for text in texts], np.int32)[places], names, len(names)


def _whole_numbers(labels: Sequence[str]) -> np.ndarray | None:
    """Return the labels as int64, 7 and 7.000000 alike; None where one is something else."""
    try:
        numbers = np.array(labels, np.float64)
    except ValueError:
        return None
    whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)
    return numbers.astype(np.int64) if whole.all() else None
