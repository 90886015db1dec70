"""Labels brought to 0..C-1, and the natural order of names."""

from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.sources.folders import natural_key


@given(st.lists(st.text("s01290-/é٣²", min_size=1, max_size=6)))
def test_natural_key_is_a_total_order(names):
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


def test_natural_key_counts():
    names = ["s10", "s2", "s02", "s1b", "s1"]
    assert sorted(names, key=natural_key) == ["s1", "s1b", "s02", "s2", "s10"]
