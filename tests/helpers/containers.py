"""Files in the layouts of other tools: what stands in them, and how they are damaged."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np

from tests.helpers.paths import FIXTURES2
from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

FOLDER = Path(os.environ.get("UNIFACE_FIXTURES2", FIXTURES2))
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
# What a user names, and the containers that it is; a source reads it without an extra or with one.
LABELED = {
    "lmdb/haiyuwu.lmdb": ["lmdb/haiyuwu.lmdb"],
    "lmdb/vec2face.lmdb": ["lmdb/vec2face.lmdb"],
    "webdataset": [f"webdataset/train-{i:06d}.tar" for i in range(2)],
    "webdataset_gz": [f"webdataset_gz/shard-{i:04d}.tar.gz" for i in range(2)],
    "webdataset_gz/shard-{0000..0001}.tar.gz": [
        f"webdataset_gz/shard-{i:04d}.tar.gz" for i in range(2)
    ],
    "webdataset_json/train-*.tar": ["webdataset_json/train-000000.tar"],
    "parquet": [f"parquet/data/train-{i:05d}-of-00002.parquet" for i in range(2)],
    "parquet/data/*.parquet": [f"parquet/data/train-{i:05d}-of-00002.parquet" for i in range(2)],
}
_LFW = "parquet_pairs/data/lfw-00000-of-00001.parquet"
PAIRS = {
    "xz/small.xz": "xz/small.xz",
    "arrow/agedb_30": "arrow/agedb_30",
    "parquet_pairs": _LFW,
    _LFW: _LFW,
}


def expected_records(containers: list[str]) -> list[tuple[int, str, int]]:
    """Return label, SHA-256 and length of every image, in order."""
    records = [record for name in containers for record in EXPECTED[name]["records"]]
    return [(record["label"], record["sha256"], record["bytes"]) for record in records]


def expected_pairs(container: str) -> list[tuple[bool, list[str]]]:
    """Return of every pair whether it is one person, and the SHA-256 of its images."""
    return [(pair["same"], pair["sha256"]) for pair in EXPECTED[container]["pairs"]]


def pairs_of(pairs: PairSet) -> list[tuple[bool, list[str]]]:
    """Return the same of a set that was read."""
    hashes = [hashlib.sha256(image).hexdigest() for image in pairs.images]
    rows = zip(pairs.same.tolist(), pairs.first.tolist(), pairs.second.tolist(), strict=True)
    return [(same, [hashes[a], hashes[b]]) for same, a, b in rows]


def records_of(source: Source) -> list[tuple[int, str, int]]:
    """Return the same of a source, labels as its container has them."""
    names = source.class_names or [str(number) for number in range(source.num_classes)]
    return [
        (int(names[item.label]), hashlib.sha256(item.image).hexdigest(), len(item.image))
        for item in (source[i] for i in range(len(source)))
    ]


def read_or_refused(path: Path | str) -> str:
    """Return the one line by which a file is refused, or "" where all of it is read."""
    try:
        source = open_source(path)
        source.sizes(np.arange(len(source)))
        for index in range(len(source)):
            source[index]
    except UserError as e:
        return str(e)
    return ""


def truncated_copies(container: Path, folder: Path, count: int):
    """Yield a copy of a container with one of its files cut short, at `count` random places."""
    rng = random.Random(container.name)
    copy = folder / container.name
    if container.is_dir():
        shutil.copytree(container, copy)
    else:
        shutil.copyfile(container, copy)
    files = sorted(file for file in copy.rglob("*") if file.is_file()) or [copy]
    for _ in range(count):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(whole[: rng.randrange(len(whole))])
        yield copy
        file.write_bytes(whole)
