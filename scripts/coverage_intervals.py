"""Count how often intervals hold the true number, on simulated sets of which it is known.

    python scripts/coverage_intervals.py [--sets=400] [--only=pairs|people] [--json=FILE]

pairs: verification sets of 3,000 same and 3,000 different pairs, whose scores are drawn by
themselves; two networks, the second with few errors. people: all pairs of 600 images of 150 people,
and a search among them. Their features are drawn about a center for each, with more noise for some
people than for others, and people of a kind look alike, so that pairs of the same people have much
in common. True numbers are those of the distribution: by its formula, and of 20 million pairs of
40,000 other people. Each row: how often the interval held the true number, and its mean width.
Returns status 1 where one held it in less than 93 %, which 400 sets tell from 95 % mostly.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy import special
from tqdm import tqdm

from uniface_jax.evaluate.metrics.identification import Searches, closed_set, search
from uniface_jax.evaluate.metrics.identification_intervals import Resampled, rank_intervals
from uniface_jax.evaluate.metrics.pair_intervals import (
    scores_by_people,
    tar_intervals,
    verification_intervals,
)
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary, ten_fold_accuracy
from uniface_jax.files.atomic import write_bytes

SAME = DIFFERENT = 3000
DEVIATION = 0.1  # of the scores of a kind
MEANS = (0.38, 0.6)  # of the scores of same pairs, of the two networks
PAIR_FARS = (0.1, 0.01, 1e-3)
PEOPLE, IMAGES, WIDTH = 150, 4, 32
PEOPLE_FARS = (0.1, 0.01, 1e-3, 1e-4)
RANKS = (1, 5)
TRUE_PEOPLE, TRUE_ROUNDS, TRUE_PAIRS = 1000, 40, 500_000  # of a round
LEAST_COVERAGE = 0.93

Found = dict[str, tuple[float, float]]  # bounds by the number's name
Names = dict[str, float]


def tar_bounds(found: Resampled) -> Found:
    """Return the bounds of TAR and threshold at each FAR."""
    known: Found = {}
    for tar, threshold in zip(found.intervals["tar_at_far"], found.thresholds, strict=True):
        known[f"TAR at FAR {tar['far']:g}"] = bounds(tar["strict"]["tar"])
        limits = threshold["threshold_cosine_interval"]
        known[f"threshold at FAR {tar['far']:g}"] = bounds(limits)
    return known


def bounds(interval: Mapping[str, float]) -> tuple[float, float]:
    return interval["lower"], interval["upper"]


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
    truth: Names = {}
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
    kinds = np.random.default_rng(77).standard_normal((8, WIDTH))  # people of a kind look alike
    own = rng.standard_normal((people, WIDTH))
    centers = own + 0.7 * kinds[rng.integers(0, len(kinds), people)]
    noise = rng.uniform(0.4, 1.2, (people, 1, 1)) * rng.standard_normal((people, IMAGES, WIDTH))
    features = (centers[:, None] + noise).reshape(-1, WIDTH)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, np.repeat(np.arange(people), IMAGES)


def searches(features: np.ndarray) -> Searches:
    """Search all but the first image of each person among the first ones."""
    people = len(features) // IMAGES
    probes = np.arange(len(features)) % IMAGES > 0
    mates = np.repeat(np.arange(people), IMAGES - 1)
    return search(features[~probes], features[probes], mates)


def people_set(seed: int) -> Found:
    """Return the intervals of all pairs of some people, and of a search."""
    features, labels = images_of(PEOPLE, np.random.default_rng([seed, 1]))
    first, second = np.triu_indices(len(labels), 1)
    scores = np.einsum("pd,pd->p", features[first], features[second])
    same = labels[first] == labels[second]
    tars = tar_summary(tar_at_far(roc(scores, same), PEOPLE_FARS))
    found = tar_intervals(tars, scores_by_people(scores, same, labels[first], labels[second]))
    ranks = searches(features)
    owners = np.repeat(np.arange(PEOPLE), IMAGES - 1)
    closed = rank_intervals(closed_set(ranks, RANKS), ranks.ranks, owners)
    of_ranks = {
        f"rank {entry['rank']}": bounds(entry["rate"]) for entry in closed.intervals["ranks"]
    }
    return {**tar_bounds(found), **of_ranks}


def true_people() -> Names:
    """Return the true numbers of people_set."""
    same, different = [], []
    hits = np.zeros(len(RANKS))
    for number in range(TRUE_ROUNDS):
        rng = np.random.default_rng([number, 2])
        features, labels = images_of(TRUE_PEOPLE, rng)
        of_people = features.reshape(-1, IMAGES, WIDTH)
        within = np.einsum("pid,pjd->pij", of_people, of_people)
        same.append(within[:, *np.triu_indices(IMAGES, 1)].ravel())
        first, second = rng.integers(0, len(labels), (2, TRUE_PAIRS))
        apart = labels[first] != labels[second]
        pairs = features[first[apart]], features[second[apart]]
        different.append(np.einsum("pd,pd->p", *pairs))
        groups = features[: TRUE_PEOPLE // PEOPLE * PEOPLE * IMAGES]
        for group in np.split(groups, TRUE_PEOPLE // PEOPLE):
            ranks = searches(group).ranks
            hits += [np.mean(ranks <= rank) for rank in RANKS]
    all_same, all_different = np.concatenate(same), np.concatenate(different)
    hits /= TRUE_ROUNDS * (TRUE_PEOPLE // PEOPLE)
    truth = {f"rank {rank}": float(rate) for rank, rate in zip(RANKS, hits, strict=True)}
    for far in PEOPLE_FARS:
        threshold = float(np.quantile(all_different, 1 - far))
        truth[f"TAR at FAR {far:g}"] = float(np.mean(all_same >= threshold))
        truth[f"threshold at FAR {far:g}"] = threshold
    return truth


def covered(title: str, found: list[Found], truth: Names) -> list[dict]:
    """Return a row for each number: how often it lay in its interval, and the mean width."""
    rows = []
    for name in found[0]:
        lower, upper = np.array([of_set[name] for of_set in found]).T
        inside = (lower <= truth[name]) & (truth[name] <= upper)
        rows.append(
            {
                "sets": title,
                "number": name,
                "true": truth[name],
                "coverage": float(inside.mean()),
                "width": float(np.mean(upper - lower)),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=400, help="of each kind")
    parser.add_argument("--only", choices=["pairs", "people"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kinds = []
    if args.only != "people":
        kinds += [(f"pairs, {mean:g}", partial(pair_set, mean), true_pairs(mean)) for mean in MEANS]
    if args.only != "pairs":
        kinds.append(("people", people_set, true_people()))
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for title, one, truth in kinds:
            seeds = range(args.sets)
            found = tqdm(pool.map(one, seeds), title, args.sets, disable=not sys.stderr.isatty())
            rows += covered(title, list(found), truth)
    print(f"| Sets ({args.sets} each) | Number | True | Coverage | Mean width |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['sets']} | {row['number']} | {row['true']:.4f} | {row['coverage']:.1%} "
            f"| {row['width']:.4f} |"
        )
    least = min(row["coverage"] for row in rows)
    print(f"least coverage: {least:.1%} (allowed {LEAST_COVERAGE:.0%})")
    if args.json:
        content = {"sets": args.sets, "rows": rows, "passed": least >= LEAST_COVERAGE}
        write_bytes(args.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0 if least >= LEAST_COVERAGE else 1


if __name__ == "__main__":
    sys.exit(main())
