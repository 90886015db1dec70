"""The door for all formats: which one is taken, and what is refused."""

import shutil

import pytest

from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


def test_several_record_files_in_a_folder(layout):
    shutil.copy(layout / "train.rec", layout / "val.rec")
    assert open_source(layout).name == str(layout / "train.rec")
    (layout / "train.rec").rename(layout / "other.rec")
    with pytest.raises(UserError, match=r"several \.rec files; give one of them"):
        open_source(layout)


def test_what_is_no_source_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none: no such file or folder"):
        open_source(tmp_path / "none")
    for content in (b"", b"<html>404</html>", bytes(600)):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(UserError, match=r"file: not a known format; expected identity folders"):
            open_source(tmp_path / "file")
