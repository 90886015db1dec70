"""Ranks of FARs, and the search for ranks among scores whose passes are made by numpy."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uniface_jax.evaluate.all_pairs.one_pass import Found, Wanted
from uniface_jax.evaluate.all_pairs.search import (
    BUDGET_SCORES,
    Search,
    rank_in_sample,
    rank_of_far,
)

MOST_COUNTS = 15 + 2  # of one pass: edges, and the ends that one rank adds


@given(st.floats(1e-9, 1.0), st.integers(1, 10**13))
@example(1.0, 7)
@example(0.5, 1)
@example(0.29, 100)  # whose product is below 29
def test_rank_of_far_is_the_largest_count_within_the_target(far, total):
    allowed = rank_of_far(far, total)
    assert 0 <= allowed <= total
    assert allowed / total <= far
    assert allowed == total or (allowed + 1) / total > far


def made_pass(scores: np.ndarray, wanted: Wanted) -> Found:
    """Return what a pass over `scores`, falling, answers: by the definition."""
    ends = {end for interval in wanted.intervals for end in interval}
    inside = [scores[(scores >= low) & (scores < high)] for low, high in wanted.intervals]
    reached = np.empty(0) if wanted.top is None else scores[scores >= wanted.top[0]]
    return Found(
        counts={edge: int(np.sum(scores >= edge)) for edge in sorted({*wanted.edges, *ends})},
        intervals=tuple(found if len(found) <= wanted.limit else None for found in inside),
        top=None if wanted.top is None else reached[: wanted.top[1]],
        top_exact=wanted.top is not None and len(reached) <= wanted.top[1],
        same=None,
    )


def searched(
    scores: np.ndarray, sample: np.ndarray, budget: int, ranks: Sequence[int]
) -> tuple[Search, int]:
    """Return a search that knows the ranks, and how many passes it took; check each of these."""
    search, passes = Search(len(scores), np.sort(sample)[::-1], budget), 0
    while any(search.statistic(rank) is None for rank in ranks):
        wanted = search.plan(ranks)
        assert len(wanted.edges) + 2 * len(wanted.intervals) <= MOST_COUNTS * len(ranks)
        assert wanted.edges or wanted.intervals or wanted.top
        assert wanted.limit == budget
        search.learn(wanted, made_pass(scores, wanted))
        passes += 1
        assert passes <= 40
    return search, passes


def check_all_that_is_known(search: Search, scores: np.ndarray, ranks: Sequence[int]) -> None:
    for rank in ranks:
        found = search.statistic(rank)
        assert found.value == scores[rank]
        assert found.larger == np.sum(scores > scores[rank])
    edges = [edge for edge, _ in search.counted()]
    assert edges == sorted(set(edges))
    assert edges[-1] == np.inf
    assert [count for _, count in search.counted()] == [np.sum(scores >= edge) for edge in edges]
    for before, kept in search.stored():
        np.testing.assert_array_equal(kept, scores[before : before + len(kept)])


KINDS = {
    "continuous": lambda rng, total: rng.standard_normal(total),
    "ties": lambda rng, total: rng.integers(-3, 4, total),
    "equal": lambda rng, total: np.full(total, rng.standard_normal()),
    "tiny": lambda rng, total: rng.standard_normal(total) * 1e-37,
}


@given(
    seed=st.integers(0, 2**32 - 1),
    total=st.integers(1, 3000),
    kind=st.sampled_from(sorted(KINDS)),
    sampled=st.sampled_from(["none", "few", "many", "elsewhere"]),
    budget=st.sampled_from([1, 20, 200, 3000]),
    shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
)
@example(seed=1, total=2000, kind="continuous", sampled="many", budget=200, shares=[0.0, 0.5])
@example(seed=1, total=200, kind="continuous", sampled="none", budget=200, shares=[0.999])
def test_any_ranks_are_found_whatever_the_sample_says(seed, total, kind, sampled, budget, shares):
    rng = np.random.default_rng(seed)
    scores = np.sort(KINDS[kind](rng, total).astype(np.float32))[::-1]
    scores = np.where(np.abs(scores) < np.finfo(np.float32).tiny, np.float32(0), scores)
    size = {"none": 0, "few": 5, "many": 500, "elsewhere": 50}[sampled]
    sample = rng.choice(scores, size) + np.float32(100 if sampled == "elsewhere" else 0)
    ranks = [int(share * total) for share in shares]
    search, _ = searched(scores, sample, budget, ranks)
    check_all_that_is_known(search, scores, ranks)


@pytest.mark.parametrize(
    ("budget", "ranks", "most"),
    [
        (200, [99], (1, 1, 6)),
        (200, [499], (2, 5, 7)),
        (200, [5000], (4, 5, 7)),
        (1000, [499], (1, 1, 6)),
        (1000, [500], (2, 4, 6)),
        (1000, [10, 1000, 50_000, 99_999], (3, 7, 12)),
        (20_000, [50_000], (2, 3, 5)),
        (20_000, [10, 1000, 50_000, 99_999], (2, 4, 9)),
        (99_999, [99_999], (1, 2, 4)),
        (100_000, [0, 50_000, 99_999], (1, 1, 1)),
    ],
)
def test_a_sample_saves_passes_and_a_wrong_one_costs_few(budget, ranks, most):
    """Among 100,000 scores: with a sample of 2,000, without one, and with one of larger scores."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.standard_normal(100_000, np.float32))[::-1]
    sample = rng.choice(scores, 2000)
    samples = (sample, np.empty(0, np.float32), sample + np.float32(100))
    for given_sample, passes in zip(samples, most, strict=True):
        search, taken = searched(scores, given_sample, budget, ranks)
        check_all_that_is_known(search, scores, ranks)
        assert taken <= passes


def test_a_sample_of_equal_scores_wastes_no_pass():
    """It parts no scores, so that the bits between the edges are halved: never an empty pass."""
    scores = np.sort(np.float32([0.5] * 300 + [0.7] * 2 + [0.1] * 3))[::-1]
    ranks = [0, 1, 200, 304]
    search, _ = searched(scores, np.full(40, np.float32(0.5)), 3, ranks)
    check_all_that_is_known(search, scores, ranks)


def test_a_pass_asks_for_what_the_sample_says():
    """Rank 5,000 of 10,000 lies among 1,000 sampled scores at their ranks 387 to 613."""
    sample = np.arange(1000, 0, -1).astype(np.float32)
    narrow = Search(10_000, sample, 5000).plan([5000])
    assert (narrow.intervals, narrow.edges, narrow.top) == (((387, 613),), (), None)
    wide = Search(10_000, sample, 2000).plan([5000])
    assert (wide.intervals, len(wide.edges), wide.edges[0], wide.edges[-1]) == ((), 15, 387, 613)
    first = Search(10_000, sample, 2000).plan([3, 70, 999])
    assert (first.edges, first.intervals, first.top[1]) == ((), (), 1000)


def test_scores_that_are_held_take_64_mebibytes():
    assert BUDGET_SCORES * np.dtype(np.float32).itemsize == 64 << 20


def test_a_count_is_asked_for_where_it_costs_nothing():
    """At the sample's score of a share, beside at most two others, below the top alone."""
    sample = np.arange(100, 0, -1).astype(np.float32)
    search = Search(10_000, sample, 100)
    assert search.plan([], (0.25, 0.5)).edges == (50, 75)
    assert search.plan([], (0.0, 0.1, 0.2, 0.3, 1.0)).edges == (80, 90, 100)
    assert search.plan([], (1.0,)).edges == (1,)
    wanted = search.plan([3], (0.0, 0.5))
    assert wanted.top == (sample[rank_in_sample(3, 10_000, 100)[1]], 4)
    assert wanted.edges == (50,)
    assert Search(10_000, sample[:0], 100).plan([], (0.5,)).edges == ()


@pytest.mark.parametrize(("rank", "total"), [(0, 10), (5, 10_000), (500, 1000), (9_999, 10_000)])
def test_a_rank_is_expected_around_its_share_of_the_sample(rank, total):
    first, last = rank_in_sample(rank, total, 100)
    middle = 100 * rank / total
    spread = 8 + 4 * middle**0.5 + 0.03 * middle
    assert middle - spread - 1 < first <= middle - spread
    assert middle + spread <= last < middle + spread + 1
