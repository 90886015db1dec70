import pytest

from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
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
