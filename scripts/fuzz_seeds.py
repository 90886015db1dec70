"""What fuzz_readers.py starts from: whole inputs of every reader, and pieces of its format."""

import gzip
import io
import json
import lzma
import pickle
import tarfile
import tempfile
from pathlib import Path

import lmdb
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniface_jax.data.conversion.manifest import MANIFEST_FILE, Manifest, write_manifest
from uniface_jax.data.conversion.recordio_writer import framed, image_payload
from uniface_jax.data.formats.image_index import image_rows, write_image_index
from uniface_jax.data.formats.recordio import MAGIC_BYTES
from uniface_jax.data.formats.tf_example import around
from uniface_jax.data.formats.tfrecord_info import DEFAULT_TEMPLATE, FEATURES_FILE, INFO_FILE
from uniface_jax.data.formats.tfrecord_shards import HEADER_BYTES, write_index
from uniface_jax.data.formats.tfrecord_shards import framed as framed_example

Files = dict[str, bytes]  # one input: the contents of the files of a folder, by their names

DIGITS = b"9" * 5000  # more than int() takes
_JSON = [b"null", b"1e999", b"-1", b"NaN", b"[" * 2000, b'{"a":', DIGITS, b'"', b"\\ud800", b"true"]
_EXAMPLE = [
    b"\x0a", b"\x12", b"\x1a", b"\x08", b"\x09", b"\x0b", b"\x0d", b"\x0a\0", b"\x05image",
    b"\x05label", b"\x04name", b"\xff" * 9 + b"\x01", b"\x80" * 20,
]  # fmt: skip
TOKENS = {
    "recordio": [MAGIC_BYTES, MAGIC_BYTES * 2, bytes(24), b"\t", b"\n", b"-1", b"9" * 25],
    "bin": [
        b".", b"(", b"]", b"}", b"R", b"b", b"cos\nsystem\n", b"\x8c\x02os", b"\x93", b"h\0",
        b"q\0", b"\x80\x05", b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"r\xff\xff\xff\xff",
        b"I1\n", b"L9L\n", b"I" + DIGITS + b"\n",
    ],
    "manifest": _JSON,
    "list": [
        b"\t", b" ", b"\n", b"#", b"\r", b"\0", b"\xff", b"nan", b"1e309", DIGITS, b"/dev/zero",
    ],
    "tar": [
        b"ustar\x0000", b"././@LongLink", b"path=", bytes(512), b"\x80" + b"\xff" * 11, b"7777777",
    ],
    "tar.gz": [b"\x1f\x8b\x08", b"ustar\x0000", bytes(8), b"\0\xff\xff", b"7777777"],
    "xz": [b"\xfd7zXZ\0", b"YZ", bytes(4), b"\x21\x01", b".", b"\x80\x05"],
    "lmdb": [
        b"\xde\xc0\xef\xbe", b"__keys__", b"__len__", b"\x92\xc4", b"\xdd" + b"\xff" * 4,
        b"\xff" * 8, b"\x01\0", b"\x02\0", b"\x04\0", b"\x10\0\x10\0",
    ],
    "parquet": [b"PAR1", b"\x15\x00", b"\x15\x04", b"\x19\x1c", b"\xff" * 9 + b"\x01", bytes(4)],
    "arrow": [*_JSON, b"\xff" * 4, b"ARROW1", bytes(8), b"../a", b"\xff" * 8, b"\x10\0\0\0"],
    "tface": [*_EXAMPLE, b"\t", b"\n", b"s\t0\t", b"s\t1\t0\t1\n", DIGITS, b"../s", b"\0"],
    "tfrecord": [
        *_JSON, *_EXAMPLE, bytes(16), b"PK\x03\x04", b"\x93NUMPY", b"|O", b"../", b"/dev/zero",
        b"\\n", b"\n", b"\\u0000", b"a" * 300, b"{DATASET}", b"{SHARD_INDEX}", b'"0",',
    ],
    "example": _EXAMPLE,
}  # fmt: skip


def _recordio() -> list[Files]:
    sets = []
    for zero in ((4.0, 6.0), (9.0, 11.0)):
        payloads = [image_payload(0, zero, b"")]
        payloads += [image_payload(k, [k // 2], b"image" * k) for k in (1, 2, 3)]
        payloads += [image_payload(4 + i, (1.0, 2.0), b"") for i in range(2)]
        sets.append(payloads)
    sets.append([image_payload(k, [k, 0.5], MAGIC_BYTES * k + b"x") for k in range(4)])
    inputs: list[Files] = []
    for payloads in sets:
        records = [framed(payload) for payload in payloads]
        ends = np.cumsum([0] + [len(record) for record in records])
        index = "".join(f"{key}\t{at}\n" for key, at in enumerate(ends[:-1]))
        content = b"".join(records)
        inputs += [{"train.rec": content, "train.idx": index.encode()}, {"train.rec": content}]
    return inputs


def _bin() -> list[Files]:
    images, same = [b"\xff\xd8image", b"other", b"x" * 300, b"\xff\xd8image"], [True, False]
    arrays = [np.frombuffer(image, np.uint8) for image in images]
    dumped = [pickle.dumps((images, same), protocol) for protocol in (0, 2, 4)]
    return [{"set.bin": content} for content in [*dumped, pickle.dumps((arrays, same), 2)]]


def _manifest() -> list[Files]:
    shards = [{"file": "a-0", "images": 2, "bytes": 9, "sha256": "0"}] * 2
    skipped = [{"index": 1, "name": "é", "reason": "cut"}]
    manifest = Manifest(
        "a", "b", "c", "d", 0, 2, "decode", "skip", 5, 4, 3, "0", "0", shards, skipped
    )
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), manifest)
        return [{MANIFEST_FILE: (Path(folder) / MANIFEST_FILE).read_bytes()}]


def _list() -> list[Files]:
    texts = ["# path label\na/1.jpg 7\nb/2.png 12\n", "0\t1.000000\ta b.png\n1\t0.0\tc.png\n"]
    texts.append("a.jpg\tann\nb.jpg\tp10\nc.jpg\tp9\n" * 5)
    return [{"list.txt": text.encode()} for text in texts]


def _tar() -> list[Files]:
    inputs: list[Files] = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            members = [("d" * 60 + "é/1.jpg", b"image"), ("d" * 60 + "é/1.cls", b"4")]
            members += [("2.json", b'{"label": 1}'), ("2.png", b"x" * 600)]
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        inputs.append({"set.tar": buffer.getvalue()[: tar.offset + 1024]})
    return inputs


def _tar_gz() -> list[Files]:
    """Return packed archives, one of them without compression, whose headers are in the open."""
    whole = [files["set.tar"] for files in _tar()]
    return [
        {f"{number}.tar.gz": gzip.compress(whole[number], level, mtime=0) for number in (0, other)}
        for other in (1, 2)
        for level in (0, 9)
    ]


def _xz() -> list[Files]:
    small = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 12}]
    contents = [files["set.bin"] for files in _bin()]
    return [
        {"set.xz": lzma.compress(content, check=check, filters=small)}
        for content in contents
        for check in (lzma.CHECK_NONE, lzma.CHECK_CRC64)
    ]


def _lmdb() -> list[Files]:
    """Return sets whose values lie in leaves, and in pages of their own."""
    inputs: list[Files] = []
    for count, size in ((5, 40), (3, 5000), (400, 9)):
        values = {b"%d" % i: msgpack.packb((b"x" * size, i % 2)) for i in range(count)}
        own = {b"__keys__": list(values), b"__len__": count, b"__classnum__": 2}
        values |= {key: msgpack.packb(value) for key, value in own.items()}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "set.lmdb"
            opened = lmdb.open(str(file), subdir=False, lock=False, map_size=1 << 20)
            with opened.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, value)
            opened.close()
            inputs.append({"set.lmdb": file.read_bytes()})
    return inputs


def _tables() -> list[pa.Table]:
    images = [{"bytes": b"image %d" % i * 9, "path": f"{i}.jpg"} for i in range(20)]
    labels, names = [i % 3 for i in range(20)], [f"p{i % 3}" for i in range(20)]
    same = [i // 2 % 2 == 0 for i in range(20)]
    return [
        pa.table({"image": images, "label": labels}),
        pa.table({"image": [image["bytes"] for image in images], "label": names}),
        pa.table({"image1": images, "image2": images[::-1], "label": [i % 2 for i in labels]}),
        pa.table({"image": images, "index": range(20), "is_same": same}),
    ]


def _parquet() -> list[Files]:
    inputs: list[Files] = []
    for table in _tables():
        for compression in ("none", "snappy", "zstd"):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, row_group_size=8, compression=compression)
            inputs.append({"set.parquet": buffer.getvalue()})
    return inputs


def _arrow() -> list[Files]:
    inputs: list[Files] = []
    state = {"_data_files": [{"filename": "a.arrow"}], "_split": None}
    for table in _tables():
        for compression in (None, "lz4"):
            options = pa.ipc.IpcWriteOptions(compression=compression)
            buffer = io.BytesIO()
            with pa.ipc.new_stream(buffer, table.schema, options=options) as writer:
                writer.write_table(table, max_chunksize=8)
            inputs.append({"a.arrow": buffer.getvalue(), "state.json": json.dumps(state).encode()})
    return inputs


def _examples() -> list[tuple[bytes, bytes, bytes]]:
    """Records in three pieces, of which the second is the image, with labels below 201."""

    def field(number: int, content: bytes) -> bytes:
        return bytes((number << 3 | 2, len(content))) + content

    def feature(name: bytes, values: bytes) -> bytes:
        return field(1, field(1, name) + field(2, values))

    examples = []
    for label, image in ((0, b"\xff\xd8image"), (200, b"other" * 40), (2, b"x")):
        before, after = around(len(image), label, f"é/{label}".encode())
        examples.append((before, image, after))
    size = feature(b"size", field(2, field(1, b"\0\0\x80\x3f")))
    for label in (field(3, b"\x08\x02"), field(3, field(1, b"\x02"))):  # alone, and packed
        features = size + feature(b"label", label) + feature(b"image", field(1, field(1, b"png")))
        examples.append((field(1, features).removesuffix(b"png"), b"png", b""))
    return examples


def _tface() -> list[Files]:
    """Return an index with its shards, whose labels the records need not have."""
    records = [framed_example(b"".join(pieces)) for pieces in _examples()]
    offsets = np.cumsum([0] + [len(record) for record in records])
    lines = [f"s\t0\t{offset}\t{i % 2 + 5}\n" for i, offset in enumerate(offsets[:-1])]
    shard = {"s-00000.tfrecord": b"".join(records)}
    return [{"index.txt": "".join(chosen).encode(), **shard} for chosen in (lines, lines[::-1])]


def _example() -> list[Files]:
    return [{"example": b"".join(pieces)} for pieces in _examples()]


def _tfrecord() -> list[Files]:
    """Return a data set as convert writes it, and one as another program may."""
    examples = _examples()
    whole = _dataset([examples[:3], examples[3:]], 201)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bounds, rows = [], []
        for pieces in (examples[:3], examples[3:]):
            sizes = [len(framed_example(b"".join(record))) for record in pieces]
            bounds.append(np.cumsum([0, *sizes]))
            begins = bounds[-1][:-1] + [HEADER_BYTES + len(before) for before, _, _ in pieces]
            lengths = np.array([len(image) for _, image, _ in pieces])
            rows.append(image_rows(begins, lengths, np.arange(len(pieces))))
        write_index(folder, bounds)
        write_image_index(folder, rows)
        indices = {file.name: file.read_bytes() for file in folder.iterdir()}
    few = _dataset([examples[2:]], 3)
    return [whole | indices, few | {"label.labels.txt": b"ann\nbob\nz\xc3\xa9\n"}]


def _dataset(shards: list[list[tuple[bytes, bytes, bytes]]], classes: int) -> Files:
    files = {
        f"s-train.tfrecord-{number:05d}-of-{len(shards):05d}": b"".join(
            framed_example(b"".join(record)) for record in shard
        )
        for number, shard in enumerate(shards)
    }
    lengths = [str(len(shard)) for shard in shards]
    split = {"name": "train", "shardLengths": lengths, "filepathTemplate": DEFAULT_TEMPLATE}
    features = {
        "image": {"image": {"shape": {"dimensions": ["8", "8", "3"]}}},
        "label": {"classLabel": {"numClasses": str(classes)}},
    }
    info = {"name": "s", "fileFormat": "tfrecord", "splits": [split]}
    files[INFO_FILE] = json.dumps(info).encode()
    files[FEATURES_FILE] = json.dumps({"featuresDict": {"features": features}}).encode()
    return files


SEEDS = {
    "recordio": _recordio,
    "bin": _bin,
    "manifest": _manifest,
    "list": _list,
    "tar": _tar,
    "tar.gz": _tar_gz,
    "xz": _xz,
    "lmdb": _lmdb,
    "parquet": _parquet,
    "arrow": _arrow,
    "tface": _tface,
    "tfrecord": _tfrecord,
    "example": _example,
}
