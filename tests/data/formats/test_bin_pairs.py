import hashlib
import io
import json
import pickle
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniface_jax.data.formats.bin_pairs import read_pairs, write_pairs
from uniface_jax.data.sources.opening import open_source
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
    assert (pairs.name, len(pairs)) == (form, 40)


def test_fixtures_malicious_is_refused_by_name(fixtures_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"malicious\.bin: refused.*'posix\.system'"):
        read_pairs(fixtures_folder / "bins" / "malicious.bin")
    assert list(tmp_path.iterdir()) == []


def test_fixtures_as_a_source(fixtures_folder, tmp_path):
    sources = [open_source(fixtures_folder / "bins" / f"{n}.bin") for n in ("py3", "py2", "numpy")]
    rows = [[tuple(item) for item in source] for source in sources]
    assert rows[0] == rows[1] == rows[2]
    pairs = read_pairs(fixtures_folder / "bins" / "py3.bin")
    labels = np.array([label for _, label, _ in rows[0]])
    assert (labels[pairs.first] == labels[pairs.second])[pairs.same].all()
    assert sorted(set(labels)) == list(range(sources[0].num_classes))
    assert "groups of images that pairs of the same person connect" in sources[0].notes[0]
    part = pickle.loads(pickle.dumps(sources[0].part(np.array([5, 2]))))
    assert [tuple(item) for item in part] == [rows[0][5], rows[0][2]]
    assert sources[0].sizes(np.array([5])).tolist() == [len(rows[0][5][0])]
    assert sources[0].fingerprint() == sources[1].fingerprint()
    with pytest.raises(UserError, match=r"malicious\.bin: refused"):
        open_source(fixtures_folder / "bins" / "malicious.bin")


def test_classes_are_what_pairs_connect(tmp_path):
    images = [b"a", b"b", b"c", b"d", b"e"]
    write_pairs(tmp_path / "x.bin", images, [4, 0, 1, 2], [1, 3, 2, 0], [True, True, False, True])
    source = open_source(tmp_path / "x.bin")
    assert [(i.image, i.label) for i in source] == [
        (b"e", 0), (b"b", 0), (b"a", 1), (b"d", 1), (b"c", 1),
    ]  # fmt: skip


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


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    ("function", "name"),
    [(eval, "eval"), (np.load, "load"), (getattr, "getattr"), (bytearray, "bytearray")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_other_global_is_refused_by_name(tmp_path, function, name, protocol):
    file = tmp_path / "set.bin"
    file.write_bytes(pickle.dumps(([Call(function, 1), b"a"], [True]), protocol))
    with pytest.raises(UserError, match=rf"refused, the pickle holds the global '.*{name}"):
        read_pairs(file)


def bombs():
    """Pickles that would take gigabytes if what they declare were believed."""
    head = b"\x80\x04"
    yield "bytes", head + b"\x8e" + (1 << 40).to_bytes(8, "little") + b"abc"
    yield "memo", head + b"]r\xff\xff\xff\xff."
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02000"
    again = b"h\x01h\x00h\x02\x86R"
    yield "encode", head + text + encode + again * 20_000 + b"."
    shape = b"J\xff\xff\xff\x7f"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + shape + b"\x85C\x01b\x87R."
    yield "array", head + array
    nested = b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00tq\x00"
    yield "tuples", head + b")q\x00" + nested * 40 + b"]h\x00ah\x00]h\x00a\x86."
    yield "call", head + b"c_codecs\nencode\n)q\x00" + nested * 40 + b"R."


@pytest.mark.parametrize(("name", "content"), [*bombs()], ids=lambda value: str(value)[:6])
def test_bombs_take_no_memory(tmp_path, name, content):
    file = tmp_path / f"{name}.bin"
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=name):
        read_pairs(file)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32_000  # KiB


def originals():
    arrays = io.BytesIO()
    pickle.dump(([b"\xff\xd8image", b"other"] * 2, [True, False]), arrays, protocol=2)
    plain = pickle.dumps(([b"\xff\xd8image", b"other"] * 2, [True, False]), protocol=4)
    return [arrays.getvalue(), plain]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "set.bin"


@settings(max_examples=300, deadline=None)
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


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60))
def test_noise_raises_nothing_but_user_errors(scratch, content):
    scratch.write_bytes(b"\x80\x02" + content)
    with pytest.raises(UserError):
        read_pairs(scratch)
