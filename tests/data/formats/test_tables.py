"""Parquet and Arrow files: what their columns may be, and what they may not cost."""

import gc
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniface_jax.data.formats import tables
from uniface_jax.data.formats.tables import TableFile, cells_of, is_table
from uniface_jax.errors import UserError

IMAGES = [b"", b"one", b"two!", b"three" * 99]


def forms(table):
    """Return a table in every form that is read."""
    found = {}
    for compression in ("none", "snappy", "gzip", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2, compression=compression)
        found[compression] = buffer.getvalue()
    for name, opened in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        buffer = io.BytesIO()
        with opened(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
        found[name] = buffer.getvalue()
    return found


def contents(file, column="image"):
    with TableFile(file) as opened:
        groups = [cells_of(batch.column(0), str(file)) for batch in opened.rows([column])]
    images = [
        bytes(group.content[a:b])
        for group in groups
        for a, b in zip(group.ends[:-1].tolist(), group.ends[1:].tolist(), strict=True)
    ]
    return images, [name for group in groups for name in group.names]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.binary(), IMAGES),
        (pa.large_binary(), IMAGES),
        (
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            [{"bytes": image, "path": f"{i}.jpg"} for i, image in enumerate(IMAGES)],
        ),
        (pa.struct({"bytes": pa.large_binary()}), [{"bytes": image} for image in IMAGES]),
    ],
)
def test_images_of_every_type_in_every_form(tmp_path, kind, values):
    table = pa.table({"image": pa.array(values, kind), "other": range(len(IMAGES))})
    named = "path" in values[0] if isinstance(values[0], dict) else False
    for content in forms(table).values():
        assert is_table(content[: tables.TABLE_HEAD_BYTES])
        (tmp_path / "table").write_bytes(content)
        images, names = contents(tmp_path / "table")
        assert images == IMAGES
        assert names == ([f"{i}.jpg" for i in range(4)] if named else [None] * 4)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1]), "images of the type int64, expected bytes"),
        (pa.array(["text"]), "images of the type string"),
        (pa.array([None], pa.binary()), "an image that is not in the table"),
        (
            pa.array([{"bytes": None, "path": "a.jpg"}],
                     pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "an image that is not in the table",
        ),
        (pa.array([None], pa.struct({"bytes": pa.binary()})), "not in the table"),
    ],
)  # fmt: skip
def test_columns_that_hold_no_images_are_refused(tmp_path, column, message):
    (tmp_path / "table").write_bytes(forms(pa.table({"image": column}))["stream"])
    with pytest.raises(UserError, match=message):
        contents(tmp_path / "table")


def test_a_table_that_repeats_an_image_for_ever_is_refused(tmp_path, monkeypatch):
    # A dictionary holds it once, and the rows are a run of its number.
    table = pa.table({"image": pa.array([b"x" * 10_000] * 5000)})
    pq.write_table(table, tmp_path / "table", compression="zstd")
    packed = (tmp_path / "table").stat().st_size
    monkeypatch.setattr(tables, "_MIN_BYTES", 1 << 20)
    with pytest.raises(UserError, match=rf"{packed} bytes hold more than \d+ bytes of rows"):
        contents(tmp_path / "table")


def test_lengths_that_lie_take_no_memory(tmp_path):
    content = forms(pa.table({"image": IMAGES}))["stream"]
    # The length of the first message of rows; a body of 2^60 bytes; both in a file of hundreds.
    for place in range(0, len(content) - 8, 8):
        changed = content[:place] + (1 << 60).to_bytes(8, "little") + content[place + 8 :]
        (tmp_path / "table").write_bytes(changed)
        before = pa.total_allocated_bytes()
        try:
            contents(tmp_path / "table")
        except UserError as e:
            assert str(tmp_path) in str(e)  # noqa: PT017
        assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_column_whose_name_is_no_text_is_refused(tmp_path):
    for content in forms(pa.table({"a name": [1], "label": [2]})).values():
        (tmp_path / "table").write_bytes(content.replace(b"a name", b"a \xffame"))
        with pytest.raises(UserError, match="table: damaged, or not a table"):
            TableFile(tmp_path / "table")


def test_a_table_that_is_not_there_is_refused_and_leaves_nothing_to_close(tmp_path, monkeypatch):
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)  # Python 3.13 tells of close()
    with pytest.raises(UserError, match="table: cannot be read"):
        TableFile(tmp_path / "table")
    gc.collect()
    assert not unraisable


def test_noise_is_no_table(tmp_path):
    for content in (b"PAR1", b"ARROW1", b"\xff" * 4 + b"\x10\0\0\0" + bytes(50), b"PAR1" * 40):
        (tmp_path / "table").write_bytes(content)
        with pytest.raises(UserError, match="table: "):
            TableFile(tmp_path / "table")
    assert not is_table(b"\xff" * 16)
    assert not is_table(np.zeros(4).tobytes())
