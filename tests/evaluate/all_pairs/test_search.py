"""Ranks of FARs."""

from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.evaluate.all_pairs.search import rank_of_far


@given(st.floats(1e-9, 1.0), st.integers(1, 10**13))
def test_rank_of_far_is_the_largest_count_within_the_target(far, total):
    allowed = rank_of_far(far, total)
    assert allowed / total <= far
    assert allowed == total or (allowed + 1) / total > far
