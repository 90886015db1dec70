"""RecordIO files of given payloads."""

import numpy as np

from uniface_jax.data.conversion.recordio_writer import framed


def write_records(path, payloads, keys=None):
    """Write a .rec file of `payloads`, and its .idx where there are keys; return its path."""
    records = [framed(payload) for payload in payloads]
    path.write_bytes(b"".join(records))
    if keys is not None:
        offsets = np.cumsum([0] + [len(record) for record in records])
        lines = [f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=False)]
        path.with_suffix(".idx").write_text("".join(lines))
    return path
