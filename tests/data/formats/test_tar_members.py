import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.formats.tar_members import unpack_gzip
from uniface_jax.errors import UserError


def unpacked(path, content):
    path.write_bytes(content)
    file = unpack_gzip(path)
    return file.path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("packed") / "set.tar.gz"


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40), st.integers(0, 5000), st.integers(0, 9), st.integers(0, 9)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_members_one_behind_the_other_unpack_as_gzip_unpacks_them(place, members):
    packed = b"".join(
        gzip.compress(piece * times, level) + bytes(padding)
        for piece, times, level, padding in members
    )
    assert unpacked(place, packed) == gzip.decompress(packed)


def test_damaged_gzip_is_refused_wherever_it_ends(place):
    content = b"seven" * 20
    member = gzip.compress(content)
    whole = member + member
    for end in range(2, len(whole)):
        if end != len(member):
            with pytest.raises(
                UserError, match=r"set\.tar\.gz: not a tar archive, or gzip that is"
            ):
                unpacked(place, whole[:end])
    assert unpacked(place, whole[: len(member)]) == content
    for back in range(1, 9):  # and the length behind it
        changed = bytearray(whole)
        changed[len(member) - back] ^= 1
        with pytest.raises(UserError, match=r"damaged or cut short \(.*incorrect"):
            unpacked(place, bytes(changed))
    with pytest.raises(UserError, match=r"damaged or cut short \(.*incorrect header"):
        unpacked(place, whole + bytes(7) + b"something else")


def test_unpacking_takes_the_same_memory_for_a_large_archive(place):
    place.write_bytes(gzip.compress(bytes(1 << 24)) + gzip.compress(bytes(1 << 20), 0))
    tracemalloc.start()
    try:
        file = unpack_gzip(place)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.size == (1 << 24) + (1 << 20)
    assert peak < 120 << 10
