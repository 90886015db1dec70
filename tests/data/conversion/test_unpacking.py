import struct
from collections import Counter

import pytest

from tests.helpers.conversion import PNG
from uniface_jax.data.conversion.recordio_writer import framed, write_insightface
from uniface_jax.data.conversion.unpacking import write_folders, write_recordio
from uniface_jax.data.formats.recordio import RecordFile
from uniface_jax.data.sources.base import Item
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


class Listed:
    name, notes = "listed", ()

    def __init__(self, items, class_names):
        self.items, self.class_names, self.num_classes = items, class_names, len(class_names)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def tree(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_folders_come_back_as_they_were(faces, dataset, tmp_path, run_cli):
    done = run_cli("unpack", dataset, tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert "23 images of 3 classes" in done.stdout
    assert tree(tmp_path / "back") == tree(faces)
    (tmp_path / "back" / "s1" / "1.jpg").unlink()
    again = run_cli("unpack", dataset, tmp_path / "back")
    assert "22 of them were there already" in again.stdout
    assert tree(tmp_path / "back") == tree(faces)
    (tmp_path / "back" / "s1" / "1.jpg").write_bytes(b"other")
    failed = run_cli("unpack", dataset, tmp_path / "back")
    assert failed.returncode == 2
    assert "1.jpg: exists already with other bytes" in failed.stderr


def test_hostile_and_equal_names_stay_inside(tmp_path):
    names = ["../../etc/passwd", "a/x.png", "b/x.png", "..", "", "x.jpg", "\0", "é" * 200]
    classes = ["../up", "a/b", ".hidden", "", "same", "Same"]
    source = Listed(
        [Item(PNG, label, name) for label in range(6) for name in names], class_names=classes
    )
    assert write_folders(source, tmp_path / "out") == 48
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert len(tree(tmp_path / "out")) == 48
    assert Counter(f.parent.name for f in (tmp_path / "out").rglob("*.png")) == dict.fromkeys(
        ["_up", "a_b", "hidden", "_", "same", "Same-5"], 8
    )
    assert write_folders(source, tmp_path / "out") == 0
    assert len(FolderSource(tmp_path / "out")) == 48


def _end_of_plain(fixtures_folder, index):
    """Return where the lines of an index end that stand before and at the first label vector."""
    file = RecordFile(fixtures_folder / "insightface" / "train.rec")
    flags = [struct.unpack("<I", file.payload(at)[:4])[0] for at in file.offsets().tolist()]
    first = next((key for key, flag in enumerate(flags) if key and flag), len(flags))
    return len(b"".join(index.splitlines(keepends=True)[: first + 1])) - 1


def test_fixtures_come_back_as_mxnet_wrote_them(fixtures_folder, tmp_path):
    for name in ("insightface/train", "im2rec/train", "edge/edge"):
        file = RecordFile(fixtures_folder / f"{name}.rec")
        again = [framed(file.payload(offset)) for offset in file.offsets().tolist()]
        assert b"".join(again) == (fixtures_folder / f"{name}.rec").read_bytes()
    original = open_source(fixtures_folder / "insightface")
    write_recordio(original, tmp_path / "back")
    back = open_source(tmp_path / "back")
    assert [tuple(item) for item in back] == [tuple(item) for item in original]
    assert back.notes == []
    for name in ("train.idx", "property"):
        whole = (fixtures_folder / "insightface" / name).read_bytes()
        # The fixture carries label vectors, which move the offsets behind the first one's key.
        end = len(whole) if name == "property" else _end_of_plain(fixtures_folder, whole)
        assert (tmp_path / "back" / name).read_bytes()[:end] == whole[:end]
    with pytest.raises(UserError, match=r"train\.rec: exists already"):
        write_recordio(original, tmp_path / "back")


def test_recordio_from_the_command_line(dataset, faces, tmp_path, run_cli):
    done = run_cli("unpack", dataset, tmp_path / "rec", "--to=recordio")
    assert done.returncode == 0, done.stderr
    back = open_source(tmp_path / "rec")
    expected = Counter((item.image, item.label) for item in FolderSource(faces))
    assert Counter((item.image, item.label) for item in back) == expected


def test_recordio_cannot_hold_everything(tmp_path):
    with pytest.raises(UserError, match="class 1 has no image"):
        write_recordio(Listed([Item(PNG, 0, "a")], ["x", "y"]), tmp_path)
    with pytest.raises(ValueError, match="label 1 after -1"):
        write_insightface(tmp_path, [Item(PNG, 1, "a")], 1)
    with pytest.raises(ValueError, match="1 items, 2 were announced"):
        write_insightface(tmp_path, [Item(PNG, 0, "a")], 2)
    assert list(tmp_path.iterdir()) == []
