"""Settings and comparisons that tests of conversions share."""

import json
from pathlib import Path

from uniface_jax.data.conversion.job import ConversionSettings

FACES = ConversionSettings("faces", shard_size=4)


def tree(folder):
    """Every file of a finished data set but the plot, whose bytes are matplotlib's affair."""
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in folder.rglob("*")
        if f.is_file() and f.suffix != ".png"
    }


def without_digests(folder: Path) -> None:
    """Make a data set one of version 0.2, whose manifest states no digests: it is believed."""
    file = folder / "manifest.json"
    values = json.loads(file.read_text())
    for key in ("digest", "files", "turned", "dropped"):
        del values[key]
    file.write_text(json.dumps(values))


# The smallest one: a gray pixel.
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1"
    b"H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82"
)
