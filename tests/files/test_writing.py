"""Files that are written where others may have planted something."""

import os
import stat
from pathlib import Path

import pytest

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.writing import PRIVATE, create, expect_writable, open_again


def test_no_link_is_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "nowhere").symlink_to("not-there")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "nowhere", "fifo"):
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
        with pytest.raises(OSError) as raised:
            open_again(tmp_path / name)
        assert raised.value.filename == str(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "not-there").exists()


def test_a_file_is_opened_again_as_it_was(tmp_path):
    for _ in range(2):
        descriptor = open_again(tmp_path / "log", os.O_APPEND, PRIVATE)
        os.write(descriptor, b"line\n")
        os.close(descriptor)
    assert (tmp_path / "log").read_text() == "line\nline\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == PRIVATE


def test_a_private_file_is_never_readable_by_others(tmp_path):
    write_bytes(tmp_path / "open", b"1")
    write_bytes(tmp_path / "run.json", b"1", PRIVATE)
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == PRIVATE
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) != PRIVATE


def test_a_place_is_tried_before_work(tmp_path):
    expect_writable(tmp_path / "new" / "folder" / "file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"/proc/new/model.onnx: cannot be written \(.* in /proc\)"):
        expect_writable(Path("/proc/new/model.onnx"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/m.onnx: cannot be written \(Not a directory in"):
        expect_writable(tmp_path / "file" / "m.onnx")
