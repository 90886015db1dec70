import shutil

import pytest

from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError


def test_identities_and_files_in_natural_order(faces):
    source = open_source(faces)
    assert isinstance(source, FolderSource)
    assert isinstance(source, Source)
    assert source.class_names == ["s1", "s2", "s10"]
    assert source.num_classes == 3
    assert [item.label for item in map(source.__getitem__, range(len(source)))] == (
        [0] * 7 + [1] * 5 + [2] * 11
    )
    names = [source[i].name for i in range(12, 23)]
    assert names[:2] == ["s10/1.jpg", "s10/2.png"]
    assert names[-2:] == ["s10/10.png", "s10/11.jpg"]
    assert source[13].image == (faces / "s10" / "2.png").read_bytes()


def test_strays_are_listed_and_hidden_files_ignored(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/1.JPG", "a/notes.txt", "a/.DS_Store", "README"):
        (tmp_path / name).write_bytes(b"x")
    source = FolderSource(tmp_path)
    assert len(source) == 1
    assert source.skipped == ["a/notes.txt", "README"]


def test_a_choice_of_identities_and_suffixes(faces):
    source = FolderSource(faces, identities=["s10", "s2"], suffixes=(".png",))
    assert source.class_names == ["s2", "s10"]
    assert len(source) == 2 + 5


def test_empty_identity_folder_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"/b: an identity folder without an image"):
        open_source(tmp_path)


def test_no_identities_and_nested_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no identity folders"):
        open_source(tmp_path)
    (tmp_path / "a" / "video1").mkdir(parents=True)
    with pytest.raises(UserError, match="a/video1: a folder inside an identity folder"):
        open_source(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="absent: no such file"):
        open_source(tmp_path / "absent")


def test_folders_of_systems_are_left_out_and_noted(faces, tmp_path):
    root = shutil.copytree(faces, tmp_path / "faces")
    for name in ("__MACOSX/s1", "s1/@eaDir/1.jpg", "s2/.AppleDouble"):
        (root / name).mkdir(parents=True)
    for name in (".DS_Store", "s1/.DS_Store", "s1/Thumbs.db", "desktop.ini", "alignment.json"):
        (root / name).touch()
    source, plain = FolderSource(root), FolderSource(faces)
    assert [item.name for item in source] == [item.name for item in plain]
    assert source.fingerprint() == plain.fingerprint()
    assert source.skipped == []
    assert list(source.notes) == [
        f"{root}/__MACOSX: left out, a system's folder",
        f"{root}/s1/@eaDir: left out, a system's folder",
    ]


def test_faults_are_errors_unless_they_are_skipped(faces, tmp_path):
    root = shutil.copytree(faces, tmp_path / "faces")
    (root / "empty").mkdir()
    (root / "s1" / "inner").mkdir()
    (root / "s2" / "circle").symlink_to("circle")
    (root / "round").symlink_to(root)
    with pytest.raises(UserError, match=r"an identity folder without an image.*on_error=skip"):
        FolderSource(root)
    source = FolderSource(root, skip_faults=True)
    assert source.class_names == ["s1", "s2", "s10"]
    assert len(source) == 23
    notes = "\n".join(source.notes)
    for expected in (
        "/empty: an identity folder without an image",
        "/s1/inner: a folder inside an identity folder: left out",
        "/round/s1: a folder inside",
        "/s2/circle: skipped, not an image",
    ):
        assert expected in notes
    assert len(open_source(root, SourceOptions(skip_faults=True))) == 23
