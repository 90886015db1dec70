"""Labels as sources have them, brought to 0..C-1."""

import numpy as np


def contiguous(
    labels: np.ndarray, declared: int | None = None
) -> tuple[np.ndarray, int, list[str] | None]:
    """Maps integer labels to 0..C-1 by ascending value, where they are not that already.

    labels: int64 [N], N >= 1. declared: the number of classes that the source itself states; labels
    that all lie below it stay as they are, even where a class has no image. Returns the labels as
    int32 [N], C, and where they were mapped the C values as text, in the order of the new labels.
    """
    if declared is not None and labels.min() >= 0 and labels.max() < declared:
        return labels.astype(np.int32), declared, None
    values, mapped = np.unique(labels, return_inverse=True)
    count = len(values)
    if values[0] == 0 and values[-1] == count - 1:
        return labels.astype(np.int32), count, None
    return mapped.astype(np.int32), count, [str(value) for value in values]
