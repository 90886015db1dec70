"""Multisets of images: in any order and grouping the same, and no other ones."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.conversion.multiset import Multiset

IMAGE = st.tuples(st.binary(max_size=2), st.integers(0, 2))


def multiset(images):
    result = Multiset()
    for image, label in images:
        result.add(image, label)
    return result


@given(st.lists(IMAGE, max_size=8), st.lists(IMAGE, max_size=8))
def test_equal_where_the_counts_are(here, there):
    same = Counter(here) == Counter(there)
    assert (multiset(here).total() == multiset(there).total()) == same
    assert (multiset(here).differing(multiset(there)) == []) == same


@given(st.permutations([(bytes([i % 3]), i % 2) for i in range(9)]), st.integers(0, 9))
def test_order_and_grouping_do_not_matter(images, cut):
    merged = multiset(images[:cut])
    merged.merge(multiset(images[cut:]))
    assert merged.total() == multiset(sorted(images)).total()
    assert merged.total()[0] == 9
