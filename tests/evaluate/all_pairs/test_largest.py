"""Collectors of the largest scores, against sorting all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.evaluate.all_pairs import largest
from uniface_jax.evaluate.all_pairs.largest import Hardest, Largest, float_above

TINY = np.finfo(np.float32).tiny


@pytest.mark.parametrize(
    ("value", "above"),
    [
        (0, TINY),
        (-TINY, 0),
        (TINY, np.nextafter(np.float32(TINY), np.float32(1))),
        (-1, -1 + 2.0**-24),
        (1, 1 + 2.0**-23),
        (1e-45, TINY),
        (-1e-45, 0),
    ],
)
def test_float_above_leaves_subnormal_ones_out(value, above):
    assert float_above(np.float32(value)) == np.float32(above)


@given(
    seed=st.integers(0, 2**32 - 1),
    keep=st.integers(1, 60),
    parts=st.lists(st.integers(0, 80), max_size=8),
    levels=st.sampled_from([2, 40, 10**6]),
    bound=st.sampled_from([-np.inf, 0.0]),
)
def test_the_largest_are_kept_and_whether_any_was_dropped(seed, keep, parts, levels, bound):
    """With a slack of 10 scores, so that few make it drop some."""
    rng = np.random.default_rng(seed)
    pushed = [rng.integers(-levels, levels, n).astype(np.float32) for n in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(largest, "_SLACK_SCORES", 10)
        collector = Largest(keep, np.float32(bound))
        for scores in pushed:
            collector.push(scores)
            assert collector._size <= keep + max(keep // 2, 10)
    every = np.concatenate([np.empty(0, np.float32), *pushed])
    reached = np.sort(every[every >= bound])[::-1]
    found = collector.falling()
    assert collector.exact == (len(found) == len(reached))
    assert len(found) >= min(keep, len(reached))
    np.testing.assert_array_equal(found, reached[: len(found)])
    assert collector.exact or len(found) == keep


@pytest.mark.parametrize(("keep", "held"), [(4, 14), (60, 90)])
def test_none_is_dropped_while_there_is_room(monkeypatch, keep, held):
    """Room is for half as many more, at least the slack."""
    monkeypatch.setattr(largest, "_SLACK_SCORES", 10)
    collector = Largest(keep, np.float32(0))
    collector.push(np.arange(held, dtype=np.float32))
    assert collector.exact
    assert collector.falling().tolist() == list(range(held))[::-1]
    collector.push(np.float32([0.5]))
    assert not collector.exact
    assert collector.falling().tolist() == list(range(held - keep, held))[::-1]


@given(
    seed=st.integers(0, 2**32 - 1),
    keep=st.integers(0, 12),
    parts=st.lists(st.integers(0, 30), max_size=6),
    sign=st.sampled_from([-1, 1]),
)
def test_the_hardest_pairs_are_kept_once(seed, keep, parts, sign):
    """All of the pairs pass by twice, as of two passes."""
    rng = np.random.default_rng(seed)
    first = rng.permutation(sum(parts))
    scores = rng.integers(-9, 9, len(first)).astype(np.float32)
    collector = Hardest(keep, sign)
    for part in np.split(np.arange(len(first)), np.cumsum(parts[:-1], dtype=int)) * 2:
        best = part[collector.candidates(scores[part])]
        if len(best):
            collector.push(scores[best], first[best], first[best] + 100)
    found = collector.pairs()
    wanted = np.sort(sign * scores)[::-1][:keep]
    np.testing.assert_array_equal(sign * found.scores, wanted)
    assert len(set(found.first.tolist())) == len(found.first)
    np.testing.assert_array_equal(found.second, found.first + 100)
    of_row = dict(zip(first.tolist(), scores.tolist(), strict=True))
    assert [of_row[row] for row in found.first.tolist()] == found.scores.tolist()
