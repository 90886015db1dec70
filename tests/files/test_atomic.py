"""Files that are written whole, or not at all."""

import errno
import threading

import numpy as np
import pytest

from tests.helpers.disks import fill
from uniface_jax.files.arrays import save_array
from uniface_jax.files.atomic import new_folder, replacing, write_bytes


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "new" / "folder" / "file.txt"
    with replacing(file) as temporary:
        temporary.write_text("half")
        assert not file.exists()
        assert temporary.parent == file.parent  # a rename between file systems would not be atomic
        temporary.write_text("whole")
    assert file.read_text() == "whole"
    assert names(file.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    file = tmp_path / "file.txt"
    write_bytes(file, b"old")

    def write_half():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file.txt"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_writers_at_once_do_not_mix(tmp_path):
    file = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(file, each)) for each in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_bytes() in contents
    assert names(tmp_path) == ["file"]


def write_folder(path):
    with new_folder(path) as temporary:
        temporary.mkdir()
        (temporary / "file").write_bytes(bytes(200_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, bytes(200_000)),
        lambda path: save_array(path, np.zeros(50_000)),
        write_folder,
    ],
)
def test_a_full_disk_is_an_error_that_names_the_file(write, small_disk):
    filler = fill(small_disk)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 100_000)
    with pytest.raises(OSError) as error:
        write(small_disk / "out")
    assert error.value.filename.startswith(str(small_disk / "out"))
    assert error.value.strerror
    assert names(small_disk) == ["filler"]


def test_a_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError) as error:
        write_bytes(tmp_path / "out", b"x")
    assert (error.value.filename, error.value.errno) == (str(tmp_path / "out"), errno.EISDIR)
