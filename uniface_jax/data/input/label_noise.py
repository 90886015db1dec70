"""Wrong labels by a seed, for experiments: some images of a training set exchange theirs.

Which images, and whose label each gets, is computed from its number (shuffle.py): it is the same in
every process and after every resume, and no table is kept. Every class keeps its number of images.
"""

from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from uniface_jax.data.input.shuffle import place_of, shuffled
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.data.sources.derived import DerivedSource
from uniface_jax.errors import UserError

_EPOCH = 2**62  # of the permutation that chooses images: none that a run has


class NoisyLabels(DerivedSource):
    """A source in which a share of the images exchange their labels, round by round.

    The images that a seeded permutation has first, `noisy` of them, get the label of the next one
    in it, the last that of the first; where both are of one class the label stays right.

    Args of the constructor: the source; the share, 0..1; and the seed.

    Raises:
        UserError: fewer than two images would be chosen.

    Example:
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> clean = SyntheticSource(num_classes=50, num_images=100)
        >>> noisy = NoisyLabels(clean, 0.3, seed=0)
        >>> noisy.noisy, sum(noisy[i].label != clean[i].label for i in range(100)) <= 30
        (30, True)
    """

    def __init__(self, source: Source, share: float, seed: int):
        super().__init__(source)
        self.noisy, self._seed = round(share * len(source)), seed
        if self.noisy < 2:
            raise UserError(
                f"config.data.label_noise={share:g}: {self.noisy} of the {len(source)} images of "
                f"{source.name}; expected a share of at least two images"
            )

    def _changed(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in `indices` of noisy images, and whose labels these get."""
        count, epochs = len(self.source), np.full(indices.shape, _EPOCH, np.int64)
        places = place_of(indices, count, self._seed, epochs)
        at = np.flatnonzero(places < self.noisy)
        following = (places[at] + 1) % self.noisy
        return at, shuffled(following, count, self._seed, epochs[at])

    def _noisy(self, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
        at, partners = self._changed(indices)
        if not len(at):
            return labels
        changed = np.array(labels, np.int64)
        changed[at] = self.source.classes(partners)
        return changed

    @override
    def __getitem__(self, index: int) -> Item:
        item = super().__getitem__(index)
        label = self._noisy(np.array([index], np.int64), np.array([item.label]))
        return item._replace(label=int(label[0]))

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        return self._noisy(indices, super().classes(indices))

    @override
    def fingerprint(self) -> str:
        text = f"{self.source.fingerprint()} {self.noisy} {self._seed}"
        return digest(np.frombuffer(text.encode(), np.uint8))

    @override
    def images(self, indices: np.ndarray) -> tuple[Sequence[bytes | memoryview], np.ndarray] | None:
        found = super().images(indices)
        return None if found is None else (found[0], self._noisy(indices, found[1]))
