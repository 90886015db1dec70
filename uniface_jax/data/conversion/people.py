"""People held out of a training set: a seeded split of a source by its classes."""

from collections.abc import Sequence

import numpy as np

from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.derived import SelectedSource
from uniface_jax.errors import UserError


class ChosenPeople(SelectedSource):
    """The images of some classes of a source, numbered anew in the source's order.

    Args of the constructor: the source; its labels, int [N]; and the classes, ascending.

    Example:
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> people = SyntheticSource(num_classes=3, num_images=6)
        >>> chosen = ChosenPeople(people, labels_of(people), [0, 2])
        >>> [item.label for item in chosen], chosen.class_names
        ([0, 1, 0, 1], ['0', '2'])
    """

    def __init__(self, source: Source, labels: np.ndarray, classes: Sequence[int]):
        names = source.class_names
        numbers = np.full(source.num_classes, -1, np.int64)
        numbers[list(classes)] = np.arange(len(classes))
        positions = np.flatnonzero(numbers[labels] >= 0)
        chosen = [str(label) if names is None else names[label] for label in classes]
        super().__init__(source, positions, numbers[labels][positions], chosen)


def labels_of(source: Source) -> np.ndarray:
    """Return the classes of all images, int64 [N]; some sources read the images for it."""
    return source.classes(np.arange(len(source))).astype(np.int64)


def held_out(labels: np.ndarray, num_classes: int, people: int, seed: int) -> list[int]:
    """Return the classes that are held out, ascending: `people` of those with two images or more.

    Someone with one image makes no pair of the same person, and stays in training.

    Args:
        labels: int [N], of all images.
        num_classes: C.
        people: how many to hold out.
        seed: of the choice.

    Raises:
        UserError: too few people have two images, or nobody would be left.

    Example:
        >>> held_out(np.array([0, 0, 1, 1, 2, 3, 3]), num_classes=4, people=2, seed=0)
        [1, 3]
    """
    able = np.flatnonzero(np.bincount(labels, minlength=num_classes) >= 2)
    if not 1 <= people <= len(able) or people >= num_classes:
        raise UserError(
            f"--people={people}: expected 1 to {min(len(able), num_classes - 1)}, of "
            f"{num_classes} people of whom {len(able)} have two images or more"
        )
    chosen = np.random.RandomState(seed).permutation(able)[:people]
    return sorted(chosen.tolist())
