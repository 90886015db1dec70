"""1:N identification of templates: closed-set ranks, and the open set by TPIR at FPIR.

A probe whose subject is in the gallery is mated, any other is unknown. Closed set: the rank of a
mated probe's own subject. Open set: a search gives an identity when the highest score reaches the
threshold; FPIR is the share of unknown probes that are given one, TPIR the share of mated probes
whose own subject is ranked first and reaches the threshold.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from uniface_jax.evaluate.metrics.verification import normalize

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)
_BLOCK_PROBES = 1024  # compared at a time
_BLOCK_ENTRIES = 4096  # features of a gallery that they are compared with


@dataclass(frozen=True, eq=False)
class Searches:
    """Findings of Q probes in a gallery of G.

    ranks: int [mated], 1 is best; entries that score as high as the mate rank before it, so that
    equal scores are no success. mate_scores: float64 [mated]. best_scores: float64 [unknown], the
    highest score that an unknown probe has in the gallery. ranks_in_order: int [mated], where of
    equal scores the later entry ranks before, as ijb_evals has it; None where it is not asked for.
    """

    gallery: int
    ranks: np.ndarray
    mate_scores: np.ndarray
    best_scores: np.ndarray
    ranks_in_order: np.ndarray | None = None


def search(gallery: np.ndarray, probes: np.ndarray, mates: np.ndarray) -> Searches:
    """Search every probe in a gallery.

    Args:
        gallery: float64 [G, D], rows of length 1.
        probes: float64 [Q, D], rows of length 1.
        mates: int [Q], the gallery's row of the probe's own subject, -1 where it has none.

    Example:
        >>> gallery = np.eye(3)
        >>> probes = np.array([[0.8, 0.6, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
        >>> found = search(gallery, probes, np.array([0, 1, -1]))
        >>> found.ranks, found.best_scores
        (array([1, 2]), array([1.]))
    """
    ranks, in_order = np.empty((2, len(probes)), np.int64)
    scores = np.empty(len(probes))
    entries = np.arange(len(gallery))

    def block(start: int) -> None:
        rows = slice(start, start + _BLOCK_PROBES)
        found = probes[rows] @ gallery.T
        mate = mates[rows]
        known = np.where(mate >= 0, found[np.arange(len(found)), mate], found.max(axis=1))
        scores[rows] = known
        # The mate counts itself, and that is its rank.
        ranks[rows] = np.count_nonzero(found >= known[:, None], axis=1)
        earlier = (found == known[:, None]) & (entries < mate[:, None])
        in_order[rows] = ranks[rows] - np.count_nonzero(earlier, axis=1)

    with ThreadPoolExecutor(2) as pool:  # one counts while the other multiplies
        list(pool.map(block, range(0, len(probes), _BLOCK_PROBES)))
    mated = mates >= 0
    return Searches(len(gallery), ranks[mated], scores[mated], scores[~mated], in_order[mated])


@dataclass(frozen=True, eq=False)
class Entries:
    """Gallery of G features, float [G, D], perhaps memory-mapped, in E entries that are searched.

    sizes: int [E], consecutive features that make an entry, whose score is its best one's. people:
    [E], labels that are equal for one person.
    """

    features: np.ndarray
    sizes: np.ndarray
    people: np.ndarray


def search_people(gallery: Entries, probes: np.ndarray, people: np.ndarray) -> Searches:
    """Search probes in a gallery where a person may have several entries, or none.

    A mated probe's rank is one more than the entries of others that score as high as the best of
    its own person's; scores are cosines, rounded to float32, so that copies of an image are equal
    wherever they stand.

    Args:
        gallery: the entries.
        probes: features [Q, D].
        people: [Q], the label of each probe's person.

    Raises:
        UserError: a feature is zero or not finite; the message names its row.

    Example:
        >>> gallery = Entries(np.eye(3), np.ones(3, int), np.array(["ann", "ann", "bob"]))
        >>> probes = np.array([[0.6, 0, 0.8], [0, 1, 0.5], [0, 1, 0]])
        >>> found = search_people(gallery, probes, np.array(["ann", "ann", "cyd"]))
        >>> found.ranks, found.best_scores
        (array([2, 1]), array([1.]))
    """
    unit = normalize(probes, "probe")
    codes = np.unique(np.concatenate([gallery.people, people]), return_inverse=True)[1]
    entry_people, probe_people = codes[: len(gallery.people)], codes[len(gallery.people) :]
    mated = np.isin(probe_people, entry_people)
    known = _mate_scores(gallery, entry_people, unit, probe_people)
    beaten_by = np.zeros(len(unit), np.int64)
    best = np.full(len(unit), -np.inf)
    for entries, scores_of in _entry_blocks(gallery):
        for start in range(0, len(unit), _BLOCK_PROBES):
            rows = slice(start, start + _BLOCK_PROBES)
            scores = scores_of(unit[rows])
            others = probe_people[rows, None] != entry_people[entries]
            beaten_by[rows] += np.count_nonzero((scores >= known[rows, None]) & others, axis=1)
            best[rows] = np.maximum(best[rows], scores.max(axis=1))
    return Searches(len(gallery.people), 1 + beaten_by[mated], known[mated], best[~mated])


def _mate_scores(
    gallery: Entries, entry_people: np.ndarray, unit: np.ndarray, probe_people: np.ndarray
) -> np.ndarray:
    """Return the best score of each probe with its own person, [Q]; +inf where it has no mate."""
    known = np.full(len(unit), np.inf)
    own = np.repeat(entry_people, gallery.sizes)
    order = np.argsort(own, kind="stable")
    probe_order = np.argsort(probe_people, kind="stable")
    for person in np.intersect1d(own, probe_people):
        mates = _run(own, order, person)
        rows = _run(probe_people, probe_order, person)
        mine = normalize(gallery.features[np.sort(mates)], "gallery entry", np.sort(mates))
        known[rows] = _rounded(unit[rows] @ mine.T).max(axis=1)
    return known


def _run(values: np.ndarray, order: np.ndarray, value: int) -> np.ndarray:
    """Return where `values` are `value`; order: their argsort."""
    first, end = (np.searchsorted(values, value, side, order) for side in ("left", "right"))
    return order[first:end]


def _entry_blocks(
    gallery: Entries,
) -> Iterator[tuple[slice, Callable[[np.ndarray], np.ndarray]]]:
    """Yield a slice of entries, and the function from unit probes to their scores, [q, e]."""
    ends = np.cumsum(gallery.sizes)
    first = 0
    while first < len(ends):
        begin = ends[first] - gallery.sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, begin + _BLOCK_ENTRIES, side="right")))
        rows = np.arange(begin, ends[last - 1])
        unit = normalize(gallery.features[begin : ends[last - 1]], "gallery entry", rows)
        starts = ends[first:last] - gallery.sizes[first:last] - begin
        yield slice(first, last), partial(_best_scores, unit, starts)
        first = last


def _best_scores(unit: np.ndarray, starts: np.ndarray, probes: np.ndarray) -> np.ndarray:
    scores = _rounded(probes @ unit.T)
    if len(starts) == len(unit):
        return scores
    best: np.ndarray = np.maximum.reduceat(scores, starts, axis=1)
    return best


def _rounded(scores: np.ndarray) -> np.ndarray:
    # A product's last digits depend on where its row stands in the block.
    return scores.astype(np.float32)


def closed_set(found: Searches, ranks: Sequence[int] = RANKS) -> dict[str, Any]:
    """Return `gallery`, `mated` (counts) and `ranks`, of each `rank`, `hits`, `rate`, for JSON.

    >>> found = Searches(3, np.array([1, 2]), np.array([0.8, 0.6]), np.array([]))
    >>> [entry["rate"] for entry in closed_set(found, (1, 2))["ranks"]]
    [0.5, 1.0]
    """
    hits = [int(np.count_nonzero(found.ranks <= rank)) for rank in ranks]
    mated = len(found.ranks)
    return {
        "gallery": found.gallery,
        "mated": mated,
        "ranks": [
            {"rank": rank, "hits": count, "rate": count / mated if mated else None}
            for rank, count in zip(ranks, hits, strict=True)
        ],
    }


def open_set(found: Searches, targets: Sequence[float] = FPIRS) -> list[dict[str, Any]]:
    """Return TPIR at each FPIR: the largest TPIR whose FPIR does not exceed the target.

    The result is for JSON, of each target: `target`, `resolvable` (True where one unknown probe is
    at most that share), `fpir`, `tpir`, `threshold` (the lowest score that is accepted; null where
    none is), `false_identifications`, `true_identifications`, `unknown`, `mated`.

    >>> found = Searches(3, np.array([1, 2]), np.array([0.8, 0.6]), np.array([0.3, 0.7]))
    >>> open_set(found, [0.5])[0]["tpir"]
    0.5
    """
    unknown = np.sort(found.best_scores)[::-1]
    first = np.sort(found.mate_scores[found.ranks == 1])
    rates = np.arange(1, len(unknown) + 1) / max(1, len(unknown))
    results = []
    for target in targets:
        # The next unknown probe after those that are allowed, and all that score as it, stay out.
        allowed = int(np.searchsorted(rates, target, side="right"))
        barrier = unknown[allowed] if allowed < len(unknown) else -np.inf
        false = int(np.count_nonzero(unknown > barrier))
        hits = len(first) - int(np.searchsorted(first, barrier, side="right"))
        accepted = [*first[len(first) - hits :][:1], *unknown[:false][-1:]]
        fpir = false / len(unknown) if len(unknown) else None
        tpir = hits / len(found.ranks) if len(found.ranks) else None
        results.append(_open_set_entry(found, target, (fpir, tpir), (false, hits), accepted))
    return results


def ijb_evals(
    found: Searches, ranks: Sequence[int] = RANKS, targets: Sequence[float] = FPIRS
) -> dict[str, Any]:
    """Return `closed_set` and `open_set` as IJB_evals.py reads them (leondgarse/Keras_insightface).

    Of equal scores the gallery's later entry ranks first. The threshold of a target is the score of
    the unknown probe int(target * unknown), from 1, which must be passed, so that one unknown probe
    fewer is given an identity than the target allows. For JSON, as closed_set and open_set.

    >>> found = Searches(3, np.array([1]), np.array([0.6]), np.array([0.5, 0.7]), np.array([1]))
    >>> ijb_evals(found, [1], [0.5])["open_set"][0]["tpir"], open_set(found, [0.5])[0]["tpir"]
    (0.0, 1.0)
    """
    assert found.ranks_in_order is not None
    unknown = np.sort(found.best_scores)[::-1]
    first = found.mate_scores[found.ranks == 1]
    results = []
    for target in targets if len(unknown) else ():
        barrier = unknown[max(int(len(unknown) * target) - 1, 0)]
        false, hits = (int(np.count_nonzero(scores > barrier)) for scores in (unknown, first))
        accepted = np.concatenate([first[first > barrier], unknown[unknown > barrier]])
        rates = false / len(unknown), hits / len(found.ranks) if len(found.ranks) else None
        results.append(_open_set_entry(found, target, rates, (false, hits), accepted))
    return {"closed_set": closed_set(replace(found, ranks=found.ranks_in_order), ranks)} | (
        {"open_set": results} if results else {}
    )


def _open_set_entry(
    found: Searches,
    target: float,
    rates: tuple[float | None, float | None],
    counts: tuple[int, int],
    accepted: Sequence[float] | np.ndarray,
) -> dict[str, Any]:
    """Return the entry of a target; rates: FPIR, TPIR; counts: of wrong and right identities."""
    unknown = len(found.best_scores)
    return {
        "target": float(target),
        "resolvable": bool(unknown and 1 / unknown <= target),
        "fpir": rates[0],
        "tpir": rates[1],
        "threshold": float(min(accepted)) if len(accepted) else None,
        "false_identifications": counts[0],
        "true_identifications": counts[1],
        "unknown": unknown,
        "mated": len(found.ranks),
    }
