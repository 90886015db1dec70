import hashlib
import io
import json
import lzma
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.containers import FOLDER, expected_pairs, pairs_of
from tests.helpers.examples import examples
from uniface_jax.data.formats.bin_pairs import looks_like_bin, read_pairs, write_pairs
from uniface_jax.errors import UserError


@pytest.mark.parametrize("form", ["py3", "py2", "numpy"])
def test_fixtures_in_all_three_forms(fixtures_folder, form):
    expected = json.loads((fixtures_folder / "bins" / "expected.json").read_text())
    pairs = read_pairs(fixtures_folder / "bins" / f"{form}.bin")
    digests = [hashlib.sha256(image).hexdigest() for image in pairs.images]
    assert len(set(digests)) == len(digests) == len(set(expected["sha256"]))
    assert [digests[i] for i in pairs.first] == expected["sha256"][0::2]
    assert [digests[i] for i in pairs.second] == expected["sha256"][1::2]
    assert pairs.same.tolist() == expected["issame"]
    assert (pairs.name, len(pairs)) == (form, len(expected["issame"]))


def test_round_trip_and_naive_unpickling(tmp_path):
    images = [b"one", b"two" * 500, b"three"]
    file = tmp_path / "set.bin"
    write_pairs(file, images, [0, 1, 1, 0], [1, 2, 2, 2], [True, False, True, False])
    pairs = read_pairs(file)
    assert [pairs.images[i] for i in pairs.first] == [images[i] for i in (0, 1, 1, 0)]
    assert [pairs.images[i] for i in pairs.second] == [images[i] for i in (1, 2, 2, 2)]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.first.dtype == pairs.second.dtype == np.int32
    assert file.stat().st_size < 2000  # every image once
    encoded, same = pickle.loads(file.read_bytes())
    assert encoded[:2] == [b"one", b"two" * 500]
    assert same == [True, False, True, False]


def varieties():
    """The same pairs as people have pickled them."""
    images = [b"one", b"two" * 500, b"three", b"one"]
    rows = [np.frombuffer(image, np.uint8) for image in images]
    same = [True, False]
    yield "tuples", (tuple(images), tuple(same))
    yield "list", [images, same]
    yield "numpy_bools", (images, [np.bool_(flag) for flag in same])
    yield "integers", (images, [np.int64(1), np.uint8(0)])
    yield "array", (images, np.array(same))
    yield "column", (images, np.array(same)[:, None])
    yield "big_endian", (images, np.array([1, 0], ">i4"))
    yield "columns", ([row[:, None] for row in rows], same)
    yield "rows", ([row[None] for row in rows], np.array(same, np.int8))
    yield "bytearrays", ([bytearray(image) for image in images], same)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(("kind", "value"), [*varieties()], ids=lambda value: str(value)[:10])
def test_varieties_of_a_bin(tmp_path, kind, value, protocol):
    if kind == "bytearrays" and protocol < 5:
        pytest.skip("a call of bytearray, of which nothing writes a .bin")
    file = tmp_path / f"{kind}.bin"
    file.write_bytes(pickle.dumps(value, protocol))
    pairs = read_pairs(file)
    assert pairs.images == [b"one", b"two" * 500, b"three"]
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 2], [1, 0])
    assert pairs.same.tolist() == [True, False]
    assert [pairs.label(i) for i in range(3)] == [
        "image 0 (pair 0, first)", "image 1 (pair 0, second)", "image 2 (pair 1, first)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "same",
    [
        np.array([2, 0]),
        np.array([1.0, 0.0]),
        np.array([["a"]]),
        np.ones((2, 2), bool),
        [np.int8(7)],
    ],
    ids=str,
)
def test_marks_that_are_none_are_refused(tmp_path, same):
    file = tmp_path / "set.bin"
    file.write_bytes(pickle.dumps(([b"a", b"b"] * len(same), same)))
    with pytest.raises(UserError, match=r"set\.bin: (refused|pair 0 is marked)"):
        read_pairs(file)


def test_writing_fails_whole(tmp_path):
    with pytest.raises(IndexError):
        write_pairs(tmp_path / "a.bin", [b"x"], [0], [1], [True])
    with pytest.raises(ValueError):
        write_pairs(tmp_path / "a.bin", [b"x"], [0], [0, 0], [True])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (([b"a", b"b", b"c"], [True]), "3 images for 1 pairs"),
        (([], []), "0 images for 0 pairs"),
        (([b"a", "b"], [True]), "image 1 is a str"),
        (([b"a", b""], [True]), "image 1 is a bytes"),
        (([b"a", b"b"], [7]), "pair 0 is marked"),
        (([b"a", b"b"], ["x"]), "pair 0 is marked"),
        ([b"a", b"b"], "another structure"),
        (7, "another structure"),
        ({"a": 1}, "the opcode EMPTY_DICT"),
    ],
)
def test_other_structures_are_named(tmp_path, value, message):
    file = tmp_path / "set.bin"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match=rf"set\.bin: .*{message}"):
        read_pairs(file)


def originals():
    arrays = io.BytesIO()
    pickle.dump(([b"\xff\xd8image", b"other"] * 2, [True, False]), arrays, protocol=2)
    plain = pickle.dumps(([b"\xff\xd8image", b"other"] * 2, [True, False]), protocol=4)
    return [arrays.getvalue(), plain]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "set.bin"


@examples(300)
@given(data=st.data())
def test_mutations_raise_nothing_but_user_errors(fixtures_folder, scratch, data):
    real = [(fixtures_folder / "bins" / f"{n}.bin").read_bytes()[-700:] for n in ("py2", "numpy")]
    content = bytearray(data.draw(st.sampled_from(originals() + real)))
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    scratch.write_bytes(bytes(content[:cut]) if data.draw(st.booleans()) else bytes(content))
    message = f"{scratch}: none"
    try:
        pairs = read_pairs(scratch)
        assert len(pairs.first) == len(pairs.same) > 0
    except UserError as e:
        message = str(e)
    assert message.startswith(f"{scratch}: ")
    assert "\n" not in message


@examples(300)
@given(content=st.binary(max_size=60))
def test_noise_raises_nothing_but_user_errors(scratch, content):
    scratch.write_bytes(b"\x80\x02" + content)
    with pytest.raises(UserError):
        read_pairs(scratch)


def test_a_bin_packed_by_xz_is_the_bin():
    pairs = read_pairs(FOLDER / "xz" / "small.xz")
    assert pairs_of(pairs) == expected_pairs("xz/small.xz")
    assert looks_like_bin(FOLDER / "xz" / "small.xz")


def test_streams_of_xz_follow_each_other_but_not_without_end(tmp_path):
    whole = lzma.decompress((FOLDER / "xz" / "small.xz").read_bytes())
    file, empty, half = tmp_path / "set.xz", lzma.compress(b""), len(whole) // 2
    parts = [lzma.compress(whole[:half]), bytes(1 << 17), empty, lzma.compress(whole[half:])]
    file.write_bytes(b"".join(parts))
    assert pairs_of(read_pairs(file)) == expected_pairs("xz/small.xz")
    file.write_bytes(empty * 5000)
    with pytest.raises(UserError, match="more than 4096 streams of xz"):
        read_pairs(file)


def test_xz_that_is_cut_short_or_a_bomb_is_refused(tmp_path):
    whole = (FOLDER / "xz" / "small.xz").read_bytes()
    file = tmp_path / "set.xz"
    for end in np.random.default_rng(0).integers(0, len(whole), 50).tolist():
        file.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"set\.xz: "):
            read_pairs(file)
    file.write_bytes(lzma.compress(bytes(1 << 24)))
    with pytest.raises(UserError, match=r"set\.xz: refused, the pickle holds more than \d+ bytes"):
        read_pairs(file)
    # Two streams one behind the other, as cat makes them.
    pickled = lzma.decompress(whole)
    file.write_bytes(lzma.compress(pickled[:999]) + lzma.compress(pickled[999:]))
    assert len(read_pairs(file)) == len(expected_pairs("xz/small.xz"))
