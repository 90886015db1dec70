"""Numbers of pairs of faces, and what they would be had other people been drawn.

As evaluate.metrics.bootstrap has it: a person who is drawn k times stands for k people, so that a
pair of one person counts k times, and a pair of two as often as both together. The first column of
`draws` has everyone once: its numbers are those of the set itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import PEOPLE, Resampling, Units, weight_blocks
from uniface_jax.evaluate.metrics.intervals import resampled_bounds
from uniface_jax.evaluate.metrics.pair_totals import CrossedTotals
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.tar_replicates import UnitScores, tar_replicates
from uniface_jax.evaluate.metrics.verification import normalize


class Pairs(NamedTuple):
    """Pairs of images: first, second int [P], rows of people int [N], 0..K-1; same bool [P]."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    people: np.ndarray

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        """Return how often each pair is there, float64 [P], for people drawn [K] times."""
        times = drawn.astype(np.float64)[self.people]
        one, other = times[self.first], times[self.second]
        weights: np.ndarray = np.where(self.same, one, one * other)
        return weights


def draws(people: int, resampling: Resampling) -> np.ndarray:
    """Return how often each of K people is drawn, float32 [1 + B, K], everyone once at first.

    >>> draws(3, Resampling(2)).sum(axis=1).tolist()
    [3.0, 3.0, 3.0]
    """
    blocks = weight_blocks(Units(PEOPLE, (people,)), resampling)
    return np.concatenate([np.ones((1, people), np.float32), *(block.T for block in blocks)])


def one_threshold_errors(scores: np.ndarray, pairs: Pairs, drawn: np.ndarray) -> np.ndarray:
    """Return the error of the best common threshold by draw, float64 [R].

    It is the mean of the rates of misses and of false accepts, at the threshold of scores [P] where
    that is smallest; drawn: [R, K]. nan of a draw without a same or a different pair.

    >>> first, second, people = np.array([0, 0]), np.array([1, 2]), np.array([0, 0, 1])
    >>> pairs = Pairs(first, second, np.array([True, False]), people)
    >>> one_threshold_errors(np.array([0.9, 0.2]), pairs, np.ones((1, 2)))
    array([0.])
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    # Equal scores are accepted together.
    ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    same = pairs.same[order]
    found = []
    for row in drawn:
        weights = pairs.weights(row)[order]
        accepted = np.cumsum(np.where(same, weights, 0))[ends]
        false = np.cumsum(np.where(same, 0, weights))[ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = (false / false[-1] + 1 - accepted / accepted[-1]) / 2
        found.append(np.minimum(errors.min(), 0.5))  # 0.5: nothing is accepted
    return np.array(found)


def accuracies(correct: np.ndarray, pairs: Pairs, drawn: np.ndarray) -> np.ndarray:
    """Return the share of pairs judged rightly by draw, float64 [R]; nan without both kinds.

    correct: bool [P]. Same and different pairs keep the shares that they have in the set, as every
    fold has the threshold that all pairs gave it. drawn: [R, K].
    """
    share = np.mean(pairs.same)
    found = []
    for row in drawn:
        weights = pairs.weights(row)
        with np.errstate(invalid="ignore", divide="ignore"):
            of_kind = [
                weights[kind] @ correct[kind] / weights[kind].sum()
                for kind in (pairs.same, ~pairs.same)
            ]
        found.append(share * of_kind[0] + (1 - share) * of_kind[1])
    return np.array(found)


def judged_rightly(distances: np.ndarray, same: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return which pairs are judged rightly, bool [P], each by the threshold of its fold.

    distances: squared, [P]; thresholds: [folds], of ten_fold_accuracy, whose folds are contiguous.
    """
    parts = np.array_split(np.arange(len(same)), len(thresholds))
    by_pair = np.repeat(thresholds, [len(part) for part in parts])
    right: np.ndarray = (distances < by_pair) == same
    return right


def tars(
    features: np.ndarray, people: np.ndarray, fars: Sequence[float], resampling: Resampling
) -> np.ndarray:
    """Return TAR at each FAR by draw, float64 [1 + B, F], strict, of all pairs of N images.

    features: [N, D]; people: int [N], 0..K-1. The draws are those of `draws`. [N, N] is held.
    """
    unit = normalize(features)
    first, second = np.triu_indices(len(unit), 1)
    scores = (unit @ unit.T)[first, second]
    first, second = people[first], people[second]
    same = first == second
    point = [found.strict.tar for found in tar_at_far(roc(scores, same), fars)]
    counts = np.bincount(people)
    different = np.stack([first[~same], second[~same]], axis=1)
    units = Units(PEOPLE, (len(counts),))
    by_people = UnitScores(
        scores[same], first[same], scores[~same], different, CrossedTotals(counts), units
    )
    return np.concatenate([[point], tar_replicates(by_people, fars, resampling).strict])


def mean_over_runs(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the mean of runs by draw, float64 [R], with other runs drawn as well.

    values: [runs, R], of the same draws of people. The first draw has every run once; each other
    one draws as many with replacement.

    >>> mean_over_runs(np.array([[1.0, 1.0], [3.0, 3.0]]), seed=0)[0]
    np.float64(2.0)
    """
    count, size = values.shape
    chosen = np.random.default_rng([seed, count]).integers(0, count, (size, count))
    chosen[0] = np.arange(count)
    mean: np.ndarray = values[chosen, np.arange(size)[:, None]].mean(axis=1)
    return mean


def bounded(values: np.ndarray, people: int) -> tuple[float, float, float]:
    """Return the number itself, values[0], and the bounds by the draws of `people` behind it.

    As intervals.resampled_bounds, widened where needed to hold the number.
    """
    lower, upper = resampled_bounds(values[1:], people)
    number = float(values[0])
    return number, float(np.fmin(lower, number)), float(np.fmax(upper, number))
