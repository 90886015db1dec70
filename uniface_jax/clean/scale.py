"""Scale of a network's cosines on a data set: what one person's images and two people's score.

Every network has another one. It is estimated from the set itself, by its labels: medians do not
mind that a few of these are wrong.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from uniface_jax.errors import UserError

RIGHT_LABELS = 20  # to one that is wrong, about: what sets from the web have
_PAIRS = 200_000  # sampled of each kind
_MAD_TO_STD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Scale:
    """Cosines of pairs of one person and of two people: means and standard deviations."""

    same_mean: float
    same_std: float
    different_mean: float
    different_std: float

    @property
    def threshold(self) -> float:
        """Return the cosine that is as many deviations from either kind's mean."""
        stds = self.same_std + self.different_std
        return (self.same_mean * self.different_std + self.different_mean * self.same_std) / stds

    def is_strange(self, cosine: float) -> bool:
        """Return True where an image's mean cosine with a person's is rather two people's.

        By the densities of two normal distributions, where one label in RIGHT_LABELS is wrong.

        >>> Scale(0.66, 0.13, 0.09, 0.09).is_strange(0.25)
        True
        >>> Scale(0.66, 0.13, 0.09, 0.09).is_strange(0.3)
        False
        """
        cosine = max(cosine, self.different_mean)
        same = (cosine - self.same_mean) / self.same_std
        different = (cosine - self.different_mean) / self.different_std
        odds = (same**2 - different**2) / 2 + math.log(self.same_std / self.different_std)
        return odds > math.log(RIGHT_LABELS)

    @property
    def near_copy(self) -> float:
        """Return the cosine from which two images may be one photograph: candidates alone."""
        return (1 + 2 * self.same_mean) / 3

    def describe(self) -> str:
        """Return the numbers in one line."""
        return (
            f"of one person {self.same_mean:.3f} ± {self.same_std:.3f}, of two "
            f"{self.different_mean:.3f} ± {self.different_std:.3f}; threshold {self.threshold:.3f}"
        )

    def record(self) -> dict[str, float]:
        """Return the numbers for JSON."""
        return {**asdict(self), "threshold": self.threshold, "near_copy": self.near_copy}


def estimate_scale(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> Scale:
    """Return the scale of features [N, D] by labels, int [N].

    Raises:
        UserError: there are no two images of one person, or of two people; or the kinds do not
            differ: the network does not tell people apart.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    codes = labels[order]
    begin = np.searchsorted(codes, codes, side="left")
    size = np.searchsorted(codes, codes, side="right") - begin
    several = np.flatnonzero(size > 1)
    if not len(several) or size[0] == len(codes):
        kind = "one person" if not len(several) else "two people"
        raise UserError(f"no two images of {kind}; expected people with several images")
    # By images, not by pairs: else those with the most images would be all that is seen.
    place = rng.choice(several, _PAIRS)
    step = rng.integers(1, size[place])
    other = begin[place] + (place - begin[place] + step) % size[place]
    same = _cosines(features, order[place], order[other])
    place, other = rng.integers(0, len(codes), (2, _PAIRS))
    apart = codes[place] != codes[other]
    different = _cosines(features, order[place[apart]], order[other[apart]])
    scale = Scale(*_center_and_spread(same), *_center_and_spread(different))
    if scale.same_mean < scale.different_mean + scale.different_std:
        raise UserError(
            f"images of one person have a cosine of {scale.same_mean:.2f}, of two people "
            f"{scale.different_mean:.2f}: this network does not tell the set's people apart"
        )
    return scale


def _center_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of a normal distribution, some of whose values are not of it."""
    center = float(np.median(values))
    return center, float(np.median(np.abs(values - center)) * _MAD_TO_STD)


def _cosines(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), 4096):
        part = slice(start, start + 4096)
        a = np.asarray(features[first[part]], np.float32)
        b = np.asarray(features[second[part]], np.float32)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        found[part] = np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-30)
    return found
