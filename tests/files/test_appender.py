"""Bytes that a disk refuses: kept in order, bounded, told once, written later."""

import contextlib
import errno
import os
import resource

import pytest

from tests.helpers.disks import fill
from uniface_jax.files import appender
from uniface_jax.files.appender import Appender


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond `size` bytes: a write ends there, the next fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def log(tmp_path, warnings):
    """(Appender, its file)."""
    path = tmp_path / "log"
    file = Appender(path, warnings.append)
    yield file, path
    file.close()


def test_nothing_is_written_before_a_flush(log):
    file, path = log
    assert file.write(b"one\n") == 4
    assert path.read_bytes() == b""
    file.flush()
    assert path.read_bytes() == b"one\n"


def test_what_was_there_stays(tmp_path, warnings):
    path = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        file = Appender(path, warnings.append)
        file.write(line)
        file.close()  # writes what is left
    assert path.read_bytes() == b"one\ntwo\n"
    assert warnings == []


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path, warnings):
    with pytest.raises(FileNotFoundError):
        Appender(tmp_path / "nowhere" / "log", warnings.append)


def test_a_write_that_is_cut_short_goes_on_where_it_ended(log, warnings):
    file, path = log
    file.write(b"0123456789")
    with files_of_at_most(4):
        file.flush()
        assert path.read_bytes() == b"0123"
        file.write(b"abc")
        file.flush()
    assert path.read_bytes() == b"0123"
    assert warnings == [f"{path}: cannot be written ({os.strerror(errno.EFBIG)}); kept in memory"]
    file.flush()
    assert path.read_bytes() == b"0123456789abc"
    assert warnings[1:] == [f"{path}: written again, nothing is missing"]


def test_it_is_told_of_every_time_that_a_disk_is_full(log, warnings):
    file, path = log
    for _ in range(2):
        file.write(b"line\n")
        with files_of_at_most(path.stat().st_size):
            file.flush()
            file.flush()
        file.flush()
    assert [("cannot" in text, "again" in text) for text in warnings] == 2 * [
        (True, False),
        (False, True),
    ]


def test_no_more_is_kept_than_the_bound(log, warnings, monkeypatch):
    monkeypatch.setattr(appender, "MAX_KEPT_BYTES", 8)
    file, path = log
    with files_of_at_most(0):
        for line in (b"first\n", b"second\n", b"third\n"):
            assert file.write(line) == len(line)  # the caller is not stopped
            file.flush()
    file.flush()
    assert path.read_bytes() == b"first\nsecond\n"  # a line is kept whole, the newest is dropped
    assert warnings[1:] == [f"{path}: written again, 6 bytes are missing"]


def test_what_a_full_disk_refuses_comes_later(small_disk, warnings):
    file = Appender(small_disk / "log", warnings.append)
    expected = b""
    for number in range(3000):
        line = f"line {number}\n".encode()
        if number == 1000:
            filler = fill(small_disk)
        if number == 2000:
            filler.unlink()
        file.write(line)
        file.flush()
        expected += line
    file.close()
    assert (small_disk / "log").read_bytes() == expected
    assert len(warnings) == 2
    assert "No space left on device" in warnings[0]
    assert "nothing is missing" in warnings[1]
