"""How often intervals hold the true number: simulated test sets of which it is known.

    python scripts/coverage_intervals.py [--sets=500] [--json=FILE]

`pairs`: verification sets of 3,000 same and 3,000 different pairs whose scores are drawn by
themselves, of a network as good as the row says. `people`: all pairs of the images of 150 people,
whose features are drawn about a center of each, with more noise for some people than for others and
some that look alike; a pair has much in common with those of the same people. True numbers are those
of the distribution: by its formula, and of two million pairs of other people. A row is a number, how
often its interval held the true one, the error of that by chance, and the mean width.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy import special

from uniface_jax.evaluate.metrics.identification import closed_set, search
from uniface_jax.evaluate.metrics.identification_intervals import rank_intervals
from uniface_jax.evaluate.metrics.pair_intervals import (
    scores_by_people,
    tar_intervals,
    verification_intervals,
)
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary, ten_fold_accuracy
from uniface_jax.files.atomic import write_bytes

SETS_AT_A_TIME = 10
SAME, DIFFERENT = 3000, 3000
DEVIATION = 0.1  # of the scores of a kind
GOOD, BETTER = 0.38, 0.6  # mean score of same pairs
PAIR_FARS = (0.1, 0.01, 1e-3)
PEOPLE, IMAGES, WIDTH = 150, 4, 32
PEOPLE_FARS = (0.1, 0.01, 1e-3, 1e-4)
RANKS = (1, 5)
_TRUE_PEOPLE = 1000  # of one of _TRUE_ROUNDS populations
_TRUE_ROUNDS = 40

Found = dict[str, tuple[float, float]]  # bounds by the number's name
Names = dict[str, float]


def pair_set(mean: float, seed: int) -> Found:
    """Return the intervals of one verification set."""
    rng = np.random.default_rng([seed, int(1000 * mean)])
    # In folds, both kinds in each, as LFW's file has them.
    same = np.arange(SAME + DIFFERENT) // 300 % 2 == 0
    scores = np.clip(rng.normal(same * mean, DEVIATION), -1, 1)
    distances = 2 - 2 * scores
    folds = ten_fold_accuracy(distances, same)
    metrics = {
        "tar_at_far": tar_summary(tar_at_far(roc(scores, same), PAIR_FARS)),
        "accuracy": {"folds": [{"accuracy": float(a)} for a in folds.accuracy]},
    }
    found = verification_intervals(metrics, scores, distances, same)
    return {**tar_bounds(found), "accuracy": bounds(found.intervals["accuracy"])}


def true_pairs(mean: float) -> Names:
    """Return the true numbers of pair_set."""
    truth = {}
    for far in PAIR_FARS:
        threshold = -DEVIATION * special.ndtri(far)
        tar = special.ndtr((mean - threshold) / DEVIATION)
        truth |= {
            f"TAR at FAR {far:g}": float(tar),
            f"threshold at FAR {far:g}": float(threshold),
        }
    # Of the threshold that is best; one that was chosen among others is worse by less than 1e-4.
    return truth | {"accuracy": float(special.ndtr(mean / 2 / DEVIATION))}


def images_of(people: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return unit features [people * IMAGES, WIDTH] and whose they are."""
    kinds = rng.standard_normal((8, WIDTH))  # people of a kind look alike
    own = rng.standard_normal((people, WIDTH))
    centers = own + 0.7 * kinds[rng.integers(0, len(kinds), people)]
    noise = rng.uniform(0.4, 1.2, (people, 1, 1)) * rng.standard_normal((people, IMAGES, WIDTH))
    features = (centers[:, None] + noise).reshape(-1, WIDTH)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, np.repeat(np.arange(people), IMAGES)


def people_set(seed: int) -> Found:
    """Return the intervals of all pairs of some people, and of a search."""
    rng = np.random.default_rng([seed, 1])
    features, labels = images_of(PEOPLE, rng)
    first, second = np.triu_indices(len(labels), 1)
    scores = np.einsum("pd,pd->p", features[first], features[second])
    same = labels[first] == labels[second]
    tars = tar_summary(tar_at_far(roc(scores, same), PEOPLE_FARS))
    found = tar_intervals(tars, scores_by_people(scores, same, labels[first], labels[second]))
    ranks = search_ranks(features, labels)
    closed = rank_intervals(closed_set(ranks, RANKS), ranks.ranks, labels[labels_of_probes(labels)])
    of_ranks = {
        f"rank {entry['rank']}": bounds(entry["rate"]) for entry in closed.intervals["ranks"]
    }
    return {**tar_bounds(found), **of_ranks}
