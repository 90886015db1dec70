import gzip
import io
import json
import pickle
import tarfile
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.formats import tar_members
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.data.sources.tar import TarSource
from uniface_jax.errors import UserError
from uniface_jax.files import unnamed


def archive(path, members, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def rows(source):
    return [(item.name, item.label, item.image) for item in source]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_with_cls_before_or_after_their_image(tmp_path, form):
    members = [
        ("0001.jpg", b"one"), ("0001.cls", b"7\n"),
        ("0002.cls", b"12"), ("0002.png", b"two!"), ("0002.txt", b"a caption"),
        ("a" * 80 + "/deep.jpg", b"three"), ("a" * 80 + "/deep.cls", b"7"),
    ]  # fmt: skip
    source = open_source(archive(tmp_path / "set.tar", members, form))
    assert isinstance(source, TarSource)
    assert rows(source) == [
        ("set.tar/0001.jpg", 0, b"one"),
        ("set.tar/0002.png", 1, b"two!"),
        ("set.tar/" + "a" * 80 + "/deep.jpg", 0, b"three"),
    ]
    assert (source.num_classes, source.class_names) == (2, ["7", "12"])
    assert "0002.txt" in source.notes[0]


def labeled(path, values):
    pairs = [[(f"{i}.jpg", b"x%d" % i), (f"{i}.json", json.dumps(value).encode())]
             for i, value in enumerate(values)]  # fmt: skip
    return archive(path, [part for pair in pairs for part in pair])


def test_a_class_in_json_is_never_a_generic_key(tmp_path):
    file = labeled(tmp_path / "set.tar", [{"id": i, "subject": i // 2} for i in range(6)])
    with pytest.raises(UserError, match=r"under label or .*found the keys id, subject: .*json_key"):
        open_source(file)
    source = open_source(file, SourceOptions(json_key="subject"))
    assert [item.label for item in source] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(UserError, match=r"under person, found the keys id, subject"):
        open_source(file, SourceOptions(json_key="person"))
    members = [(f"{name}/{i}{suffix}", content) for name in ("ann", "bob") for i in range(2)
               for suffix, content in ((".jpg", b"x"), (".json", b'{"id": 3}'))]  # fmt: skip
    source = open_source(archive(tmp_path / "people.tar", members))
    assert source.class_names == ["ann", "bob"]
    assert "classes are the images' folders; the .json files have only the keys id" in str(
        source.notes
    )


def test_labels_in_json_are_numbers_as_in_lists(tmp_path):
    source = open_source(labeled(tmp_path / "set.tar", [{"label": v} for v in (1.0, 7, "1", 7.0)]))
    assert [item.label for item in source] == [0, 1, 0, 1]
    assert source.class_names == ["1", "7"]
    for value in (True, None, [1], " "):
        with pytest.raises(UserError, match=r"found the keys label"):
            open_source(labeled(tmp_path / "set.tar", [{"label": value}]))


def header(name, size, kind=tarfile.REGTYPE):
    """Return a header whose size, of any sign, is in base 256."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % (1 << 96)).to_bytes(12, "big") if size < 0 else b"%011o " % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def hostile():
    image = header("a/x.png", 5) + b"image".ljust(512, b"\0")
    yield "negative", image + header("a/y.png", -1024) + b"\0" * 1024
    yield "negative directory", image + header("a", -512, tarfile.DIRTYPE) + b"\0" * 1024
    yield "negative name", header("a", -512, tarfile.GNUTYPE_LONGNAME) + image
    yield "long name", header("a", 1 << 30, tarfile.GNUTYPE_LONGNAME) + image
    for records in (
        {"size": "-1024"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(8 << 30)},
        {"GNU.sparse.map": "0," + str(8 << 30), "GNU.sparse.size": str(8 << 30)},
        {"GNU.sparse.size": str(8 << 30), "GNU.sparse.offset": "0", "GNU.sparse.numbytes": "1"},
    ):
        text = b""
        for key, value in records.items():
            line = f" {key}={value}\n".encode()
            text += b"%d" % (len(line) + 2) + line
        pax = header("pax", len(text), tarfile.XHDTYPE) + text.ljust(512, b"\0")
        yield f"pax {next(iter(records))}", image + pax + image + b"\0" * 1024
    sparse = header("a/z.png", 512, tarfile.GNUTYPE_SPARSE)
    yield "sparse", image + sparse + b"\0" * 2048


@pytest.mark.parametrize(("kind", "content"), [*hostile()], ids=lambda value: str(value)[:20])
def test_headers_that_loop_or_lie_are_refused(tmp_path, kind, content):
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"set\.tar: "):
        open_source(tmp_path / "set.tar")


def test_what_is_no_regular_file_is_listed(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name, kind in (("a/1.jpg", tarfile.SYMTYPE), ("a/2.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("a/3.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    source = open_source(tmp_path / "set.tar")
    assert rows(source) == [("set.tar/a/3.jpg", 0, b"x")]
    assert "a/1.jpg (no regular file), a/2.jpg (no regular file)" in source.notes[0]


def test_a_folder_of_shards_in_natural_order(tmp_path):
    for shard in (10, 2):
        members = [(f"{shard}-{i}.jpg", b"%d %d" % (shard, i)) for i in range(2)]
        labels = [(f"{shard}-{i}.json", json.dumps({"label": i}).encode()) for i in range(2)]
        pairs = [part for pair in zip(members, labels, strict=True) for part in pair]
        archive(tmp_path / f"shard{shard}.tar", pairs)
    source = open_source(tmp_path)
    assert [(item.name, item.label) for item in source] == [
        ("shard2.tar/2-0.jpg", 0), ("shard2.tar/2-1.jpg", 1),
        ("shard10.tar/10-0.jpg", 0), ("shard10.tar/10-1.jpg", 1),
    ]  # fmt: skip
    assert source.class_names is None
    part = pickle.loads(pickle.dumps(source.part(np.array([3, 0]))))
    assert rows(part) == [rows(source)[3], rows(source)[0]]
    assert source.sizes(np.array([0, 3])).tolist() == [3, 4]


def test_identity_folders_in_an_archive(tmp_path):
    members = [("s10/1.jpg", b"a"), ("s2/1.jpg", b"b"), ("s2/.hidden.jpg", b"c")]
    source = open_source(archive(tmp_path / "set.tar", members))
    assert [(item.name, item.label) for item in source] == [
        ("set.tar/s10/1.jpg", 1),
        ("set.tar/s2/1.jpg", 0),
    ]
    assert source.class_names == ["s2", "s10"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.jpg", b"x"), ("2.jpg", b"y"), ("2.cls", b"0")], r"1\.jpg: no \.cls or \.json"),
        ([("1.jpg", b"x")], "gives an image's class"),
        ([("1.cls", b"0")], "no image in it"),
        ([("1.jpg", b"x"), ("1.cls", b"0\n1")], r"1\.cls: '0\\n1', expected a class"),
        ([("1.jpg", b"x"), ("1.cls", b"1" * 70_000)], r"1\.cls: 70000 bytes"),
        ([("1.jpg", b"x"), ("1.json", b"{")], r"1\.json: not JSON"),
    ],
)
def test_malformed_samples_are_named(tmp_path, members, message):
    file = archive(tmp_path / "set.tar", members)
    with pytest.raises(UserError, match=rf"set\.tar: .*{message}"):
        open_source(file)


def test_damaged_archives_are_named(tmp_path):
    file = archive(tmp_path / "set.tar", [("1.jpg", b"x" * 2000), ("1.cls", b"0")])
    whole = file.read_bytes()
    file.write_bytes(whole[:1500])
    with pytest.raises(UserError, match=r"set\.tar: .*(cut short|damaged)"):
        open_source(file)
    file.write_bytes(whole)
    source = open_source(file)
    file.write_bytes(whole[:1500])
    with pytest.raises(UserError, match=r"set\.tar: 1\.jpg: the archive was cut short"):
        source[0]
    file.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(UserError, match="not a tar archive"):
        open_source(file)


@examples(150)
@given(data=st.data())
def test_damage_raises_nothing_but_user_errors(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "mutated.tar"
    archive(file, [("1.jpg", b"x" * 20), ("1.cls", b"0"), ("é/2.jpg", b"y"), ("é/2.cls", b"1")])
    content = bytearray(file.read_bytes())[:6000]
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    message = f"{file}: none"
    try:
        assert len(rows(open_source(file))) > 0
    except UserError as e:
        message = str(e)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message


def packed(path, members):
    path.write_bytes(gzip.compress(archive(path.with_suffix(""), members).read_bytes()))
    path.with_suffix("").unlink()
    return path


def test_gzip_is_unpacked_where_nobody_sees_it(tmp_path, monkeypatch):
    members = [("a/1.jpg", b"one"), ("a/1.cls", b"7\n"), ("b/2.jpg", b"two!"), ("b/2.cls", b"9")]
    file = packed(tmp_path / "set.tar.gz", members)
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    source = open_source(file)
    assert rows(source) == [
        ("set.tar.gz/a/1.jpg", 0, b"one"), ("set.tar.gz/b/2.jpg", 1, b"two!"),
    ]  # fmt: skip
    assert "gzip is read from its beginning alone" in source.notes[0]
    assert [*room.iterdir()] == []
    # Decoding processes get the source, converting ones parts of it.
    for copy in (source, source.part(np.arange(2))):
        assert rows(pickle.loads(pickle.dumps(copy))) == rows(source)
    opened = source._unpacked[0].path
    del source, copy
    assert not opened.exists() or "uniface-" not in str(opened.readlink())


def test_a_bomb_and_a_full_disk_are_refused_before_they_fill_it(tmp_path, monkeypatch):
    file = tmp_path / "set.tar.gz"
    monkeypatch.setattr(tar_members, "_MIN_UNPACKED_BYTES", 1 << 16)
    file.write_bytes(gzip.compress(bytes(1 << 20), 9))
    with pytest.raises(UserError, match=r"set\.tar\.gz: \d+ bytes unpack to more than \d+"):
        open_source(file)
    packed(file, [("a/1.jpg", b"x"), ("a/1.cls", b"7")])
    monkeypatch.setattr(unnamed, "SPARE_BYTES", 1 << 60)
    with pytest.raises(UserError, match=r"set\.tar\.gz: .* whose disk is then full .*TMPDIR"):
        open_source(file)


def test_an_archive_without_its_end_mark_is_noted(tmp_path):
    file = archive(tmp_path / "set.tar", [("a/1.jpg", b"x"), ("a/1.cls", b"7")])
    file.write_bytes(file.read_bytes()[:2048])
    assert "ends without a tar's end mark" in str(open_source(file).notes)
    file.write_bytes(file.read_bytes()[:1300])
    with pytest.raises(UserError, match="cut short"):
        open_source(file)
