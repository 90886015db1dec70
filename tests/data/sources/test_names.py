"""Names in one block of bytes, against a list of them."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.sources.names import Names

NAME = st.text() | st.binary().map(os.fsdecode)


@given(st.lists(NAME.filter(lambda name: not _has_lone_surrogates(name))))
def test_as_a_list(expected):
    names = Names(expected[:2])
    for name in expected[2:]:
        names.append(name)
    assert len(names) == len(expected)
    assert list(names) == [names[i] for i in range(len(names))] == expected
    assert list(names.take(np.arange(len(names))[::-2])) == expected[::-2]


def test_arrays_tell_where_each_ends():
    text, ends = Names(["ab", "", "é"]).arrays()
    assert text.tobytes() == "abé".encode()
    np.testing.assert_array_equal(ends, [0, 2, 2, 4])
    with pytest.raises(IndexError):
        Names(["ab"])[1]


def _has_lone_surrogates(name):
    """Those that no file name gives."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False
