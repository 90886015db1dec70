"""Classes of which every image was skipped do not remain, wherever the conversion was killed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.conversion import FACES, tree
from uniface_jax.data.conversion import emptied
from uniface_jax.data.conversion.manifest import read_manifest
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.unpacking import write_recordio
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.lists import ListSource
from uniface_jax.data.sources.opening import open_source

SKIP = replace(FACES, on_error="skip")


@pytest.fixture
def source(faces, tmp_path):
    """Three people of whom the second has no image that can be used."""
    folder = shutil.copytree(faces, tmp_path / "faces")
    for file in (folder / "s2").iterdir():
        file.write_bytes(b"<html>404</html>")
    return FolderSource(folder)


def test_an_emptied_class_is_left_out(source, tmp_path):
    info = convert(source, tmp_path / "set", SKIP)
    assert info.class_names == ["s1", "s10"]
    found = open_source(tmp_path / "set")
    assert {(item.name.split("/")[0], item.label) for item in found} == {("s1", 0), ("s10", 1)}
    manifest = read_manifest(tmp_path / "set")
    assert (manifest.dropped, manifest.classes) == ([1], 2)
    assert verify(source, tmp_path / "set").skipped == len(manifest.skipped) > 0
    assert convert(source, tmp_path / "set", SKIP).num_classes == 2  # complete, and the same job
    write_recordio(found, tmp_path / "rec")
    assert open_source(tmp_path / "rec").num_classes == 2


def test_a_class_without_images_stays_where_nothing_was_skipped(faces, tmp_path):
    source = FolderSource(faces)
    source.num_classes, source.class_names = 4, ["s1", "s2", "s10", "nobody"]
    assert convert(source, tmp_path / "set", SKIP).num_classes == 4
    assert read_manifest(tmp_path / "set").dropped == []


def test_numbers_of_a_list_become_names(faces, tmp_path):
    folder = shutil.copytree(faces, tmp_path / "faces")
    (folder / "list.txt").write_text("s1/1.jpg 0\nabsent.jpg 1\ns2/1.jpg 2\n")
    info = convert(ListSource(folder / "list.txt"), tmp_path / "set", SKIP)
    assert info.class_names == ["0", "2"]


@pytest.mark.parametrize("killed", range(8))
def test_a_kill_at_any_moment_changes_nothing(source, tmp_path, monkeypatch, killed):
    convert(source, tmp_path / "whole", SKIP)
    calls = iter(range(1000))

    def dying(function):
        def call(*arguments):
            if next(calls) == killed:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("_relabel", "write_bytes", "_take_place"):
            patch.setattr(emptied, name, dying(getattr(emptied, name)))
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "set", SKIP)
    convert(source, tmp_path / "set", SKIP)
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")


def test_new_numbers():
    assert emptied.renumbered(5, [0, 3]).tolist() == [-1, 0, 1, -1, 2]
    assert emptied.renumbered(2, []).dtype == np.int64
