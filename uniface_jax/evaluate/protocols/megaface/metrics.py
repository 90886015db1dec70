"""MegaFace challenge 1: probes among up to a million distractors, of any images.

Identification: for each ordered pair of images of one probe identity, one is put among the
distractors and the other is the query; its rank is one more than the distractors that the query
is at least as like. Verification: same pairs of probes against pairs of probe and distractor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import (
    AllPairs,
    Targets,
    all_pairs_metrics,
    search_pairs,
)
from uniface_jax.evaluate.all_pairs.largest import Hardest, HardPairs
from uniface_jax.evaluate.all_pairs.one_pass import Wanted, run_pass
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures, PairTiles, Tiling
from uniface_jax.evaluate.metrics.verification import normalize

LABEL_LEAK = "refined_label_leak"
SIZES = (10, 100, 1000, 10_000, 100_000, 1_000_000)
_PROBES, _DISTRACTORS = 256, 4096  # of one product; its tile is compared with every mate
_CMC_POINTS = 1000
_HIGHER = 8  # times a FAR that its own interval may reach to
REPORTED_RANKS = (1, 5, 10, 100)


@dataclass(frozen=True)
class Challenge:
    """Numbers of distractors, and the targets of verification.

    sizes: the first distractors of an order drawn with `seed`; sizes above the number N of them
    are left out, and N itself is added. label_leak: refined numbers with centers as well.
    """

    sizes: Sequence[int] = SIZES
    seed: int = 0
    pairs: Targets = Targets()
    label_leak: bool = False


@dataclass(frozen=True, eq=False)
class Clean:
    """Marks of the images that are on no noise list: probes bool [P], distractors bool [N]."""

    probes: np.ndarray
    distractors: np.ndarray


@dataclass(frozen=True, eq=False)
class Cmc:
    """Cumulative match characteristic at one number of distractors.

    ranks: int [R] rising from 1. rates: float64 [R], the share of queries whose mate has such a
    rank or a better one.
    """

    distractors: int
    ranks: np.ndarray
    rates: np.ndarray

    def rate(self, rank: int) -> float:
        """Return the share of queries of this rank (from 1) or better, at the last known point."""
        return float(self.rates[np.searchsorted(self.ranks, rank, side="right") - 1])


@dataclass(frozen=True, eq=False)
class MegaFace:
    """probes, identities, distractors, queries: counts. cmc: one for each number of distractors.

    verification: all_pairs' result; its hardest pairs name probes first and, where they are
    different ones, distractors second. ranks: int [S, Q], of each query among each number of
    distractors; people: int [Q], the identity of each; mate_scores: float32 [Q]. false_accepts:
    int [P, T], the distractors that reach the threshold of each FAR, of each probe;
    probe_people: int [P], the identity of each.
    """

    probes: int
    identities: int
    distractors: int
    queries: int
    cmc: tuple[Cmc, ...]
    verification: AllPairs
    ranks: np.ndarray
    people: np.ndarray
    mate_scores: np.ndarray
    false_accepts: np.ndarray
    probe_people: np.ndarray


def megaface(
    probes: LabeledFeatures,
    distractors: np.ndarray,
    *,
    challenge: Challenge = Challenge(),
    tiling: Tiling = Tiling(),
    progress: str | None = None,
) -> MegaFace:
    """Return both parts of the challenge.

    Args:
        probes: features [P, D] of any float type, and their labels [P].
        distractors: features [N, D].
        challenge: how many distractors there are, and the targets of verification.
        tiling: see all_pairs.
        progress: title of the progress bars; None shows none.

    Raises:
        UserError: a feature is not finite or zero, there is no distractor, no probe has a second
            image of its identity, or a number of distractors is below 1.
    """
    sizes = _sizes(challenge.sizes, len(distractors))
    own = PairTiles(probes, tiling=tiling)
    if own.positives == 0:
        raise UserError(f"no two of the {len(probes.features)} probes are of one identity")
    hard_same = Hardest(challenge.pairs.hardest, -1)
    same = run_pass(own, Wanted(same=True), hard_same, Hardest(0, 1)).same
    assert same is not None
    tiles = PairTiles(probes, LabeledFeatures(distractors), tiling)
    verification = search_pairs(
        tiles,
        (same, hard_same.pairs()),
        _with_higher_fars(challenge.pairs, tiles.negatives),
        progress and f"{progress}, verification",
    )
    points = verification.points[: len(challenge.pairs.fars)]
    unit = normalize(probes.features, "probe").astype(np.float32)
    scores, valid = _mate_scores(unit, np.asarray(probes.labels))
    barriers = np.array([point.strict.threshold for point in points], np.float32)
    columns = np.hstack([scores, np.broadcast_to(barriers, (len(unit), len(barriers)))])
    reached = _reached_by(unit, columns, distractors, sizes, challenge.seed, progress)
    ranks = 1 + reached[:, :, : scores.shape[1]][:, valid]
    people = np.unique(np.asarray(probes.labels), return_inverse=True)[1]
    return MegaFace(
        probes=len(probes.features),
        identities=len(np.unique(np.asarray(probes.labels))),
        distractors=len(distractors),
        queries=ranks.shape[1],
        cmc=tuple(_cmc(size, of_size) for size, of_size in zip(sizes, ranks, strict=True)),
        verification=replace(verification, points=points),
        ranks=ranks,
        people=np.repeat(people, np.count_nonzero(valid, axis=1)),
        mate_scores=scores[valid],
        false_accepts=reached[-1, :, scores.shape[1] :],
        probe_people=people,
    )


def _with_higher_fars(targets: Targets, total: int) -> Targets:
    """Return the targets with FARs behind them up to which thresholds' intervals may reach.

    Those for which not all that many of `total` scores can be held are left out.
    """
    higher = [_HIGHER * far for far in targets.fars]
    kept = [far for far in higher if far <= 1 and far * total < targets.budget]
    return replace(targets, fars=(*targets.fars, *kept))


def _sizes(sizes: Sequence[int], distractors: int) -> list[int]:
    """Return the rising sizes below the number of distractors, and that number."""
    if min(sizes, default=1) < 1:
        raise UserError(f"{min(sizes)} distractors; expected at least 1")
    return sorted({size for size in sizes if size < distractors} | {distractors})


def identification_ranks(
    probes: LabeledFeatures,
    distractors: np.ndarray,
    sizes: Sequence[int],
    seed: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return the mate's rank, int [S, Q], from 1, of each query at each of the rising sizes [S].

    Q: ordered pairs of probes of one identity, by probe and mate. See megaface. Distractors that
    score as the mate does count as better. Memory: 8 bytes for each probe, mate and size.
    """
    unit = normalize(probes.features, "probe").astype(np.float32)
    mates, valid = _mate_scores(unit, np.asarray(probes.labels))
    return 1 + _reached_by(unit, mates, distractors, sizes, seed, progress)[:, valid]


def _reached_by(
    unit: np.ndarray,
    scores: np.ndarray,
    distractors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    progress: str | None,
) -> np.ndarray:
    """Count the distractors that score at least each of scores [P, M] with the probe, [S, P, M].

    unit: float32 [P, D], the probes. sizes [S]: rising numbers of distractors, in an order drawn
    with `seed`.
    """
    order = np.random.default_rng(seed).permutation(len(distractors))
    reached_by = np.zeros((len(sizes), *scores.shape), np.int64)
    devices = jax.local_devices()
    blocks = [
        jax.device_put(
            (_padded(unit, start, 0), _padded(scores, start, np.inf)), devices[n % len(devices)]
        )
        for n, start in enumerate(range(0, len(unit), _PROBES))
    ]
    begin = 0
    with tqdm(
        total=sizes[-1],
        desc=progress and f"{progress}, identification",
        disable=progress is None,
        unit=" distractors",
        unit_scale=True,
    ) as bar:
        for s, size in enumerate(sizes):
            if s:
                reached_by[s] = reached_by[s - 1]
            while begin < size:
                end = min(begin + _DISTRACTORS, size)
                rows = order[begin:end]
                chunk = np.zeros((_DISTRACTORS, unit.shape[1]), np.float32)
                chunk[: len(rows)] = normalize(distractors[rows], "distractor", rows)
                counts = [_beaten_by(*block, chunk, len(rows)) for block in blocks]
                reached_by[s] += np.concatenate(jax.device_get(counts))[: len(unit)]
                bar.update(end - begin)
                begin = end
    return reached_by


def megaface_runs(
    probes: LabeledFeatures,
    distractors: np.ndarray,
    clean: Clean | None = None,
    *,
    challenge: Challenge = Challenge(),
    tiling: Tiling = Tiling(),
    progress: str | None = None,
) -> dict[str, MegaFace]:
    """Return megaface of all images, "raw", and "refined" of the clean ones, if these are given.

    Noisy images are dropped: to put the mean of its identity in a noisy probe's place, as
    insightface's script does, tells the evaluation the labels. "refined_label_leak" is that, where
    the challenge asks for it, see with_centers. Hardest pairs name rows of the given arrays.
    """

    def run(name: str, probes: LabeledFeatures, distractors: np.ndarray) -> MegaFace:
        title = progress and f"{progress}, {name}"
        return megaface(probes, distractors, challenge=challenge, tiling=tiling, progress=title)

    runs = {"raw": run("raw", probes, distractors)}
    if clean is None:
        return runs
    kept, others = np.flatnonzero(clean.probes), np.flatnonzero(clean.distractors)
    labels = np.asarray(probes.labels)[kept]
    refined = run("refined", LabeledFeatures(probes.features[kept], labels), distractors[others])
    runs["refined"] = _of_rows(refined, kept, others)
    if challenge.label_leak:
        leaked = with_centers(probes, clean.probes, challenge.seed)
        found = run(LABEL_LEAK, leaked, distractors[others])
        runs[LABEL_LEAK] = _of_rows(found, np.arange(len(clean.probes)), others)
    return runs


def with_centers(probes: LabeledFeatures, clean: np.ndarray, seed: int) -> LabeledFeatures:
    """Return the probes, each noisy one replaced by the center of its identity's clean ones.

    As insightface's remove_noises.py: the unit vector of the sum of their unit features, after
    numbers drawn from -0.001 to 0.001 are added. clean: bool [P]. Raises UserError naming an
    identity without a clean probe.
    """
    unit, labels = normalize(probes.features, "probe"), np.asarray(probes.labels)
    names, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(names), unit.shape[1]))
    np.add.at(sums, codes[clean], unit[clean])
    noisy = np.flatnonzero(~clean)
    bare = np.setdiff1d(codes[noisy], codes[clean])
    if len(bare):
        raise UserError(f"{names[bare[0]]}: all its probes are noisy; no center can replace them")
    jitter = np.random.default_rng(seed).uniform(-0.001, 0.001, (len(noisy), unit.shape[1]))
    unit[noisy] = normalize(sums[codes[noisy]] + jitter, "center")
    return LabeledFeatures(unit, labels)


def _of_rows(result: MegaFace, kept: np.ndarray, others: np.ndarray) -> MegaFace:
    """Return a result whose hardest pairs name the rows that were kept of the given arrays."""
    found = result.verification
    same, different = found.hardest_same, found.hardest_different
    found = replace(
        found,
        hardest_same=HardPairs(same.scores, kept[same.first], kept[same.second]),
        hardest_different=HardPairs(
            different.scores, kept[different.first], others[different.second]
        ),
    )
    return replace(result, verification=found)


def megaface_metrics(result: MegaFace) -> dict[str, Any]:
    """Return a result for JSON.

    Counts, `identification` (`distractors` and `rank`: the rate by rank), and `verification`, see
    all_pairs_metrics.
    """
    return {
        "probes": result.probes,
        "identities": result.identities,
        "distractors": result.distractors,
        "queries": result.queries,
        "identification": [
            {
                "distractors": cmc.distractors,
                "rank": {
                    str(rank): cmc.rate(rank)
                    for rank in REPORTED_RANKS
                    if rank <= cmc.distractors + 1
                },
            }
            for cmc in result.cmc
        ],
        "verification": all_pairs_metrics(result.verification),
    }


def _mate_scores(unit: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of each probe with its mates, float32 [P, most mates], and a mask, bool."""
    codes = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(codes)
    scores = np.full((len(unit), max(1, sizes.max() - 1)), np.inf, np.float32)
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(sizes)
    for rows in np.split(order, ends[:-1]):
        product = unit[rows] @ unit[rows].T
        mates = ~np.eye(len(rows), dtype=bool)
        scores[rows, : len(rows) - 1] = product[mates].reshape(len(rows), -1)
    return scores, np.isfinite(scores)


@jax.jit
def _beaten_by(
    probes: jax.Array, mates: jax.Array, distractors: jax.Array, valid: int
) -> jax.Array:
    """Count those of the first `valid` distractors that score at least each mate, [P, M]."""
    scores = jnp.matmul(probes, distractors.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(jnp.arange(scores.shape[1], dtype=jnp.int32)[None] < valid, scores, -jnp.inf)
    return jnp.sum(scores[:, None, :] >= mates[:, :, None], axis=-1, dtype=jnp.int32)


def _padded(rows: np.ndarray, start: int, value: float) -> np.ndarray:
    part = rows[start : start + _PROBES]
    return np.pad(part, ((0, _PROBES - len(part)), (0, 0)), constant_values=value)


def _cmc(distractors: int, ranks: np.ndarray) -> Cmc:
    rising = np.sort(ranks)
    points = np.geomspace(1, distractors + 1, _CMC_POINTS).round().astype(np.int64)
    points = np.union1d(points, [r for r in REPORTED_RANKS if r <= distractors + 1])
    return Cmc(distractors, points, np.searchsorted(rising, points, side="right") / len(rising))
