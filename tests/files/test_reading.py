"""Bytes of files that change while they are read."""

import os

import pytest

from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_at


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
