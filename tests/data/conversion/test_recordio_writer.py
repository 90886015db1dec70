"""RecordIO as it is written: against MXNet, and at the limits of the format."""

import shutil

import numpy as np
import pytest

from tests.helpers.conversion import PNG
from uniface_jax.data.conversion.recordio_writer import framed
from uniface_jax.data.sources.opening import open_source


def test_files_over_4_gigabytes(tmp_path):
    """Offsets beyond 2^32: nine records of 512 MiB of holes, images before and after them."""
    image = framed(np.frombuffer(b"\0" * 24 + PNG, np.uint8).tobytes())
    file = tmp_path / "train.rec"
    offsets, size = [], (1 << 29) - 4
    with file.open("wb") as out:
        for _ in range(9):
            offsets.append(out.tell())
            out.write(framed(b"")[:4] + size.to_bytes(4, "little"))
            out.seek(size, 1)
        for key in (9, 10):
            offsets.append(out.tell())
            out.write(image[:16] + key.to_bytes(8, "little") + image[24:])
    assert offsets[-1] > 1 << 32
    if file.stat().st_blocks * 512 > 1 << 24:
        shutil.rmtree(tmp_path)
        pytest.skip("the file system has no sparse files")
    for indexed in (True, False):
        if indexed:
            rows = [f"{key}\t{at}\n" for key, at in enumerate(offsets)]
            file.with_suffix(".idx").write_text("".join(rows))
        else:
            file.with_suffix(".idx").unlink()
        source = open_source(file)
        assert len(source) == 11
        assert source[10] == (PNG, 0, "10")
        assert source.sizes(np.array([10])).tolist() == [len(image)]
