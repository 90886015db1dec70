import hashlib
import pickle
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers import mxnet_fixtures
from tests.helpers.examples import examples
from tests.helpers.record_files import write_records
from uniface_jax.data.conversion.recordio_writer import image_payload
from uniface_jax.data.formats.recordio import MAGIC_BYTES, RecordFile
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.recordio import RecordIOSource
from uniface_jax.errors import UserError


def contents(source):
    return [tuple(source[i]) for i in range(len(source))]


def assert_expected(source, folder):
    expected = mxnet_fixtures.expected(folder)
    found = [(item.name, item.label, hashlib.sha256(item.image).hexdigest()) for item in source]
    assert found == [(str(e["index"]), int(e["label"]), e["sha256"]) for e in expected]
    assert [len(item.image) for item in source] == [e["bytes"] for e in expected]


def test_fixtures_of_both_layouts(layout):
    source = open_source(layout)
    assert isinstance(source, RecordIOSource)
    assert_expected(source, layout)
    classes = mxnet_fixtures.num_classes(layout)
    assert (source.num_classes, source.class_names, source.notes) == (classes, None, [])
    assert contents(open_source(layout / "train.rec")) == contents(source)
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_fixtures_with_missing_or_stale_index(layout):
    index = layout / "train.idx"
    right = index.read_text()
    lines = right.splitlines(keepends=True)
    shifted = "".join(
        f"{key}\t{int(at) + 4 * (int(at) > 0)}\n" for key, at in map(str.split, lines)
    )
    for wrong, reason in [
        (None, "cannot be read"),
        ("", "is not two numbers a line"),
        ("1\t0\n2\n", "is not two numbers a line"),
        ("a\t0\n", "something else than keys"),
        ("1\t-4\n", "something else than keys"),
        (f"1\t0\n2\t{10**30}\n", "offsets that are not in the .rec"),
        ("1\t0\n1\t40\n", "a key or an offset twice"),
        (shifted, "does not fit train.rec"),
        ("".join(lines[:-3]), "does not fit train.rec"),
        ("".join(lines[:5] + lines[6:]), "does not fit train.rec"),
        (right.replace(lines[1], ""), "does not fit train.rec"),
    ]:
        index.unlink(missing_ok=True)
        if wrong is not None:
            index.write_text(wrong)
        source = open_source(layout)
        assert_expected(source, layout)
        assert len(source.notes) == 1
        assert reason in source.notes[0]
        assert "indexed anew" in source.notes[0]


def test_index_lines_in_any_order(layout):
    lines = (layout / "train.idx").read_text().splitlines()
    (layout / "train.idx").write_text("\n".join(lines[::-1]))
    source = open_source(layout)
    assert_expected(source, layout)
    assert source.notes == []


def test_images_and_headers_that_hold_the_magic(tmp_path):
    number = struct.unpack("<I", MAGIC_BYTES)[0]
    payloads = [
        image_payload(1, [0], b"ab" + MAGIC_BYTES + b"cd"),  # not at a boundary: one part
        image_payload(2, [1], b"abcd" + MAGIC_BYTES * 3 + b"e"),
        image_payload(number, [1], b"image of an id like the magic"),
        image_payload(4, [2, 0.5], MAGIC_BYTES),
    ]
    expected = [("1", 0), ("2", 1), ("4", 2), (str(number), 1)]
    for keys in (None, [1, 2, number, 4]):
        source = RecordIOSource(write_records(tmp_path / "train.rec", payloads, keys))
        assert [(item.name, item.label) for item in source] == expected
        assert source[1].image == b"abcd" + MAGIC_BYTES * 3 + b"e"
        assert source[2].image == MAGIC_BYTES


def test_other_labels_are_mapped_and_kept(tmp_path):
    payloads = [image_payload(k, [label], b"x%d" % k) for k, label in enumerate([70, 5, 900, 5])]
    source = RecordIOSource(write_records(tmp_path / "train.rec", payloads, range(4)))
    assert [item.label for item in source] == [1, 0, 2, 0]
    assert (source.num_classes, source.class_names) == (3, ["5", "70", "900"])


def test_labels_that_float32_merges_are_noted(tmp_path):
    for largest, notes in ((2**24 - 1, 0), (2**24 + 1, 1)):
        payloads = [
            image_payload(k, [label], b"x") for k, label in enumerate([largest - 1, largest])
        ]
        source = RecordIOSource(write_records(tmp_path / "train.rec", payloads, range(2)))
        assert len(source.notes) == notes
        assert source.num_classes == 2 - notes  # 2^24 and 2^24 + 1 are one number
    assert "float32" in source.notes[0]


def insightface_set(declared=(4.0, 6.0), identities=2):
    payloads = [image_payload(0, declared, b"")]
    payloads += [image_payload(k, [k // 2], b"image") for k in (1, 2, 3)]
    return payloads + [image_payload(4 + i, [1.0, 2.0], b"") for i in range(identities)]


@pytest.mark.parametrize("indexed", [True, False])
def test_key_0_is_believed_only_where_it_is_right(tmp_path, indexed):
    file = tmp_path / "train.rec"
    keys = range(6) if indexed else None
    source = RecordIOSource(write_records(file, insightface_set(), keys))
    assert [(item.name, item.label) for item in source] == [("1", 0), ("2", 1), ("3", 1)]
    with pytest.raises(UserError, match="key 0 declares 9 images, there are 3"):
        RecordIOSource(write_records(file, insightface_set((10.0, 12.0)), keys))
    source = RecordIOSource(write_records(file, insightface_set((4.0, 9.0)), keys))
    assert "declares 5 identities, there are records of 2" in source.notes[-1]
    assert source.num_classes == 2


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ([b"short"], "record at byte 0: 5 bytes, expected an image header of"),
        ([image_payload(0, [0], b"x"), image_payload(3, [0], b"")], "key 3 holds no image"),
        ([image_payload(0, [1.5], b"x")], "key 0: label 1.5, expected a class number"),
        ([image_payload(0, [-1], b"x")], "key 0: label -1, expected"),
        ([image_payload(0, [float("nan")], b"x")], "key 0: label nan, expected"),
        (
            [struct.pack("<IfQQ", 2**31, 0, 0, 0)],
            "record at byte 0: 24 bytes, .* header of 8589934616",
        ),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_malformed_image_records_are_named(tmp_path, payloads, message, indexed):
    file = write_records(tmp_path / "train.rec", payloads, [0, 3] if indexed else None)
    with pytest.raises(UserError, match=rf"train\.rec: {message}"):
        RecordIOSource(file)


def file_of(content, folder):
    (folder / "whole.rec").write_bytes(content)
    return folder / "whole.rec"


def test_cut_short_files_are_named(layout, tmp_path):
    file = layout / "train.rec"
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 7):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"train\.rec: record at byte \d+: .*cut short"):
            open_source(layout)
    second = int(RecordFile(file_of(whole, tmp_path)).offsets()[1])
    file.write_bytes(whole[:second] + b"JUNK" + whole[second + 4 :])
    with pytest.raises(
        UserError, match=r"record at byte \d+: magic 0x4b4e554a, expected 0xced7230a"
    ):
        open_source(layout)
    file.write_bytes(b"")
    with pytest.raises(UserError, match="empty, expected RecordIO records"):
        open_source(layout)
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "train.rec"


@examples(300)
@given(st.data())
def test_damage_raises_nothing_but_user_errors(scratch, data):
    write_records(scratch, [*insightface_set(), image_payload(9, [1], MAGIC_BYTES * 2)], range(7))
    index = scratch.with_suffix(".idx")
    for file in (scratch, index):
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
        file.write_bytes(bytes(content[:cut]))
    message = f"{scratch}: none"
    try:
        assert all(item.image for item in RecordIOSource(scratch))
    except UserError as e:
        message = str(e)
    assert message.startswith(f"{scratch}: ")
    assert "\n" not in message


@examples(200)
@given(st.binary(max_size=80))
@example(b"")
@example(MAGIC_BYTES + b"\x04\0\0\0abcd" + MAGIC_BYTES)
def test_noise_raises_nothing_but_user_errors(scratch, content):
    scratch.write_bytes(content)
    scratch.with_suffix(".idx").unlink(missing_ok=True)
    with pytest.raises(UserError):
        RecordIOSource(scratch)
