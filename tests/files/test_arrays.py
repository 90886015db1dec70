"""Arrays in files: mapped where the file is what was saved, and None for anything else."""

import numpy as np
import pytest

from uniface_jax.files.arrays import create_array, map_array, save_array

ROWS = np.array([(1, -2), (3, 4)], [("begin", "<u8"), ("label", "<i4")])


@pytest.mark.parametrize("array", [np.arange(5), np.zeros(3, np.uint16), ROWS])
def test_round_trip(tmp_path, array):
    save_array(tmp_path / "a.npy", array)
    found = map_array(tmp_path / "a.npy", array.dtype, len(array))
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_anything_else_is_none(tmp_path):
    file = tmp_path / "a.npy"
    assert map_array(file, np.dtype(np.int64), 4) is None
    save_array(file, np.arange(4))
    assert map_array(file, np.dtype(np.int64), 5) is None
    assert map_array(file, np.dtype(np.float64), 4) is None
    whole = file.read_bytes()
    for wrong in (b"", whole[:-1], whole + b"\0", b"\0" + whole[1:], whole[:20]):
        file.write_bytes(wrong)
        assert map_array(file, np.dtype(np.int64), 4) is None
    objects = np.array([{"a": 1}] * 4, object)  # which numpy would unpickle
    np.save(file, objects, allow_pickle=True)
    assert map_array(file, np.dtype(np.int64), 4) is None


def test_an_array_on_a_full_disk_is_an_error_and_leaves_nothing(small_disk):
    with pytest.raises(OSError, match="No space left on device"):
        create_array(small_disk / "features.npy", (1 << 20, 4), np.float32)
    assert not list(small_disk.iterdir())
    create_array(small_disk / "features.npy", (1 << 10, 4), np.float32)[:] = 1
