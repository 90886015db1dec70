import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.tar import TarSource
from uniface_jax.errors import UserError


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
