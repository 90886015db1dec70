"""Largest scores of a stream, in little memory: alone, or with the pairs they are of."""

from dataclasses import dataclass

import numpy as np

LOWEST = np.float32(np.finfo(np.float32).min)  # below every score
TINY = np.float32(np.finfo(np.float32).tiny)
_SLACK_SCORES = 1 << 16


def float_above(value: np.float32) -> np.float32:
    """Return the next larger float32 that is not subnormal: devices take those for 0."""
    above: np.float32 = np.nextafter(value, np.float32(np.inf))
    if abs(above) >= TINY:
        return above
    return np.float32(0) if value < 0 else TINY


class Largest:
    """Collector of the `keep` largest scores of those pushed that are at least `bound` (float32).

    `bound` rises: once `keep` scores are held, only a score above the least of them matters.
    `exact`: nothing that is at least the first bound was dropped.
    """

    def __init__(self, keep: int, bound: np.float32) -> None:
        self.keep, self.bound, self.exact = keep, np.float32(bound), True
        self._held: list[np.ndarray] = []
        self._size = 0

    def push(self, scores: np.ndarray) -> None:
        """Take in scores, float32 [K]."""
        scores = scores[scores >= self.bound]
        self._held.append(scores)
        self._size += len(scores)
        if self._size > self.keep + max(self.keep // 2, _SLACK_SCORES):
            scores = np.concatenate(self._held)
            scores = np.partition(scores, len(scores) - self.keep)[len(scores) - self.keep :]
            self.bound, self.exact = float_above(scores.min()), False
            self._held, self._size = [scores], len(scores)

    def falling(self) -> np.ndarray:
        """Return the scores, float32, falling: no more than `keep` once some were dropped."""
        scores = np.sort(np.concatenate([np.empty(0, np.float32), *self._held]))[::-1]
        return scores if self.exact else scores[: self.keep]


@dataclass(frozen=True, eq=False)
class HardPairs:
    """H pairs, hardest first: scores float32 [H], and first, second int [H], their images' rows."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Hardest:
    """Collector of the `keep` pairs of largest sign * score; of those of equal score, any."""

    def __init__(self, keep: int, sign: int) -> None:
        self.keep, self.sign = keep, np.float32(sign)
        self.bound = np.float32(-np.inf)
        empty = np.empty(0, np.int64)
        self._held = np.empty(0, np.float32), empty, empty

    def candidates(self, scores: np.ndarray) -> np.ndarray:
        """Return the places in scores [K] of pairs worth pushing, int."""
        if self.keep == 0:
            return np.empty(0, np.int64)
        return np.flatnonzero(self.sign * scores > self.bound)

    def push(self, scores: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Take in pairs: scores float32 [K] and their rows, int [K] each."""
        held = (
            np.concatenate([self._held[0], scores]),
            np.concatenate([self._held[1], first]),
            np.concatenate([self._held[2], second]),
        )
        best = np.argsort(-self.sign * held[0], kind="stable")[: 2 * self.keep]
        # A later pass comes by the same pairs again: each is there at most twice.
        once = np.unique(np.stack([held[1][best], held[2][best]]), axis=1, return_index=True)[1]
        best = best[np.sort(once)][: self.keep]
        self._held = held[0][best], held[1][best], held[2][best]
        if len(best) == self.keep:
            self.bound = self.sign * self._held[0][-1]

    def pairs(self) -> HardPairs:
        """Return the pairs that were kept."""
        return HardPairs(*self._held)
