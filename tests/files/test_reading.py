"""Files that are no regular ones, and bytes of files that change while they are read."""

import os
import socket
from pathlib import Path

import pytest

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular, read_at, read_lines, read_regular


def test_a_file_that_ends_early_or_is_closed_is_named(tmp_path):
    (tmp_path / "shard").write_bytes(b"0123456789")
    descriptor = os.open(tmp_path / "shard", os.O_RDONLY)
    assert read_at(descriptor, 3, 4, "shard") == b"3456"
    os.truncate(tmp_path / "shard", 5)
    with pytest.raises(UserError, match=r"shard: record 7: the file was cut short while it was"):
        read_at(descriptor, 3, 4, "shard: record 7")
    os.close(descriptor)
    with pytest.raises(UserError, match=r"shard: cannot be read \(Bad file descriptor\)"):
        read_at(descriptor, 3, 4, "shard")


def no_regular_files(folder):
    """Make one of each kind that a path may lead to; all would block or never end."""
    os.mkfifo(folder / "fifo")
    (folder / "to_fifo").symlink_to("fifo")
    (folder / "to_device").symlink_to("/dev/zero")
    (folder / "circle").symlink_to("circle")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
    return ["fifo", "to_fifo", "to_device", "circle", "folder", "socket"]


def test_only_regular_files_are_opened(tmp_path):
    for name in no_regular_files(tmp_path):
        with pytest.raises(OSError) as raised:
            open_regular(tmp_path / name)
        assert raised.value.strerror, name
        assert raised.value.filename == str(tmp_path / name), name
    (tmp_path / "file").write_bytes(b"0123")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"0123"
    assert read_regular(Path("/proc/self/stat"))  # regular, of size 0


def test_a_file_is_read_up_to_a_size(tmp_path):
    (tmp_path / "file").write_bytes(b"0123")
    assert read_regular(tmp_path / "file", 4) == b"0123"
    with pytest.raises(OSError, match=r"4 bytes; at most 3 are read"):
        read_regular(tmp_path / "file", 3)
    with pytest.raises(OSError, match=r"at most 3 are read"):
        read_regular(Path("/proc/self/stat"), 3)


def test_bytes_that_are_no_utf8_make_another_line_than_any_text(tmp_path):
    (tmp_path / "lines").write_bytes("a\ufffd\r\n".encode() + b"a\xff\x0bb\n")
    lines = read_lines(tmp_path / "lines", 100)
    assert lines == ["a\ufffd", "a\udcff\x0bb"]
    with pytest.raises(UnicodeEncodeError):
        lines[1].encode()
