"""Times the intervals of a verification set, and of pairs as many as IJB-C's.

    python scripts/bench_bootstrap.py [--quick] [--json=FILE]

A verification set has 3,000 same and 3,000 different pairs, which are drawn again 1,000 times: TAR
at three FARs, and the accuracy over ten folds. IJB-C has 19,557 same and 15,638,932 different pairs
of 3,531 people's templates; people are drawn again, for TAR at six FARs. Scores are made up, with a
part in common for pairs of a template. Beside both, a loop that draws and counts one resample after
another, on a few of them, scaled up. --quick: a hundredth of IJB-C's pairs.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import Resampling, joined_people, weight_blocks
from uniface_jax.evaluate.metrics.pair_intervals import (
    scores_by_pairs,
    scores_by_people,
    tar_intervals,
    verification_intervals,
)
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary, ten_fold_accuracy
from uniface_jax.evaluate.protocols.ijb.metrics import FARS
from uniface_jax.files.atomic import write_bytes

PAIRS_ALLOWED, IJBC_ALLOWED = 2.0, 60.0  # seconds
PEOPLE, PROBES, SAME, DIFFERENT = 3_531, 19_593, 19_557, 15_638_932
RESAMPLES = 1000
_LOOPED = {"pairs": 40, "ijbc": 2}  # resamples of the plain loop


def looped(scores, same, fars, times) -> float:
    """Return the seconds of resamples made up one by one, each counted as the evaluation does."""
    started = time.perf_counter()
    for weights in times:
        tar_at_far(roc(np.repeat(scores, weights), np.repeat(same, weights)), fars)
    return time.perf_counter() - started


def verification() -> dict:
    rng = np.random.default_rng(0)
    same = np.arange(6000) // 300 % 2 == 0
    scores = np.clip(rng.normal(same * 0.45, 0.12), -1, 1)
    distances, fars = 2 - 2 * scores, (0.1, 0.01, 1e-3)
    metrics = {
        "tar_at_far": tar_summary(tar_at_far(roc(scores, same), fars)),
        "accuracy": {
            "folds": [{"accuracy": float(a)} for a in ten_fold_accuracy(distances, same).accuracy]
        },
    }
    started = time.perf_counter()
    verification_intervals(metrics, scores, distances, same)
    seconds = time.perf_counter() - started
    by_pairs, unit = scores_by_pairs(scores, same)
    (weights,) = weight_blocks(by_pairs.units, Resampling(_LOOPED["pairs"]))
    plain = looped(scores, same, fars, weights[unit].T.astype(int))
    return row("6,000 pairs", seconds, PAIRS_ALLOWED, plain * RESAMPLES / _LOOPED["pairs"])


def ijbc(share: float) -> dict:
    rng = np.random.default_rng(0)
    templates = PEOPLE + PROBES
    subject = np.append(np.arange(PEOPLE), rng.integers(0, PEOPLE, PROBES))
    probe = PEOPLE + np.arange(round(share * SAME))
    gallery = subject[probe]
    first = np.append(gallery, rng.integers(0, PEOPLE, round(share * DIFFERENT))).astype(np.int32)
    second = np.append(probe, rng.integers(PEOPLE, templates, round(share * DIFFERENT)))
    second = second.astype(np.int32)
    same = subject[first] == subject[second]
    own = rng.normal(0, 0.03, templates)
    scores = rng.normal(same * 0.6, 0.11) + own[first] + own[second]
    metrics = tar_summary(tar_at_far(roc(scores, same), FARS))
    started = time.perf_counter()
    people = joined_people(first[same], second[same], templates)
    by_people = scores_by_people(scores, same, people[first], people[second])
    tar_intervals(metrics, by_people)
    seconds = time.perf_counter() - started
    (weights,) = weight_blocks(by_people.units, Resampling(_LOOPED["ijbc"]))
    drawn = weights.T.astype(int)
    times = [np.where(same, w[people[first]], w[people[first]] * w[people[second]]) for w in drawn]
    plain = looped(scores, same, FARS, times) * RESAMPLES / _LOOPED["ijbc"]
    return row(
        f"{len(scores):,} pairs of {by_people.units.count:,} people", seconds, IJBC_ALLOWED, plain
    )


def row(name: str, seconds: float, allowed: float, plain: float) -> dict:
    return {
        "set": name,
        "seconds": seconds,
        "allowed": allowed,
        "loop_seconds": plain,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of IJB-C's pairs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [verification(), ijbc(0.01 if args.quick else 1.0)]
    print(f"{'1,000 resamples of':38}{'seconds':>9}{'allowed':>9}{'loop, s':>10}{'peak GB':>9}")
    for found in rows:
        print(
            f"{found['set']:38}{found['seconds']:9.2f}{found['allowed']:9.0f}"
            f"{found['loop_seconds']:10.0f}{found['gigabytes']:9.2f}"
        )
    passed = all(found["seconds"] <= found["allowed"] for found in rows)
    if args.json:
        content = {"rows": rows, "passed": passed}
        write_bytes(args.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
