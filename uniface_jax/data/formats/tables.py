"""Tables of images as Hugging Face keeps them: Parquet, and Arrow as save_to_disk writes it.

pyarrow reads them. What a file says of lengths is held against the file: a read gives no more than
is there, rows come in small groups, and what they add up to is bounded by the file's size.
"""

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from uniface_jax.errors import UserError, extra
from uniface_jax.files.reading import open_descriptor

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_MAGIC = b"PAR1"
TABLE_HEAD_BYTES = 16  # by which the format is told
_ARROW_FILE_MAGIC = b"ARROW1"
_STREAM_MARK = b"\xff\xff\xff\xff"  # before each message of Arrow's stream format
_ROWS = 64  # of a Parquet file at a time
_BUFFER_BYTES = 1 << 20
_MAX_FOOTER_BYTES = 1 << 26
# Images do not become smaller by compression; a table of few is repeated in dictionaries.
_MAX_EXPANSION, _MIN_BYTES = 100, 1 << 26
_MAX_NAMES = (1 << 31) - 1


@dataclass(frozen=True)
class Cells:
    """Encoded images of K rows: their bytes one behind the other, and where each ends.

    content: the bytes; ends: int64 [K + 1], the first is 0; names: the images' own, or None each.
    """

    content: memoryview
    ends: np.ndarray
    names: list[str | None]


def is_table(head: bytes) -> bool:
    """Return True where a file that begins so is Parquet or Arrow."""
    return head.startswith((PARQUET_MAGIC, _ARROW_FILE_MAGIC)) or (
        head.startswith(_STREAM_MARK) and len(head) > 8 and head[4:8] != _STREAM_MARK
    )


class TableFile:
    """A Parquet or Arrow file: its columns' names and kinds, and its rows in groups.

    Raises:
        UserError: the file is malformed, cut short, or asks for more memory than is there, or
            pyarrow is not installed; the message names the file.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._errors():
            self._source = _BoundedFile(open_descriptor(path))
        try:
            with extra("containers"):
                import pyarrow as pa
            with self._errors():
                self._reader, self.schema = self._opened(pa)
                self.columns: list[str] = self.schema.names  # decoded here, where it may fail
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> "TableFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def _opened(self, pa: Any) -> tuple[Any, "pa.Schema"]:
        """Return pyarrow's reader of the file, and its schema."""
        head = self._source.read(8)
        self._source.seek(0)
        file = pa.PythonFile(self._source, mode="r")
        if head.startswith(PARQUET_MAGIC):
            import pyarrow.parquet as pq

            reader = pq.ParquetFile(
                file,
                buffer_size=_BUFFER_BYTES,
                thrift_string_size_limit=_MAX_FOOTER_BYTES,
                thrift_container_size_limit=_MAX_FOOTER_BYTES,
            )
            return reader, reader.schema_arrow
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if head.startswith(_ARROW_FILE_MAGIC):
            reader = pa.ipc.open_file(file, options=options)
        else:
            reader = pa.ipc.open_stream(file, options=options)
        return reader, reader.schema

    @property
    def count(self) -> int:
        """Return how many rows a Parquet file says that it has; UserError for another file."""
        metadata = getattr(self._reader, "metadata", None)
        if metadata is None:
            raise UserError(f"{self.path}: not a Parquet file")
        return int(metadata.num_rows)

    def rows(self, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
        """Yield the rows in groups, with these columns alone."""
        most = _MIN_BYTES + _MAX_EXPANSION * self._source.size
        total = 0
        batches = self._batches(columns)
        while True:
            with self._errors():
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
                total += batch.nbytes
            if total > most:
                raise UserError(
                    f"{self.path}: {self._source.size} bytes hold more than {most} bytes of rows, "
                    "as no images do"
                )
            yield batch

    def _batches(self, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
        if hasattr(self._reader, "iter_batches"):
            yield from self._reader.iter_batches(_ROWS, columns=list(columns), use_threads=False)
            return
        if hasattr(self._reader, "num_record_batches"):
            for number in range(self._reader.num_record_batches):
                yield self._reader.get_batch(number).select(list(columns))
            return
        for batch in self._reader:
            yield batch.select(list(columns))

    def feature_names(self, column: str) -> list[str] | None:
        """Return the names of a column's classes by Hugging Face's own words, or None."""
        text = (self.schema.metadata or {}).get(b"huggingface")
        try:
            names = json.loads(text)["info"]["features"][column]["names"] if text else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return names or None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise UserError for what pyarrow finds in a file."""
        try:
            yield
        except UserError:
            raise
        except OSError as e:
            told = e.strerror or " ".join(str(e).split())[:100]
            raise UserError(f"{self.path}: cannot be read ({told})") from e
        except Exception as e:  # pyarrow's errors are ValueErrors, KeyErrors, MemoryErrors, …
            reason = " ".join(str(e).split())[:100] or type(e).__name__
            raise UserError(f"{self.path}: damaged, or not a table ({reason})") from e


def cells_of(column: Any, where: str) -> Cells:
    """Return the encoded images of a column of a group of rows.

    column: struct of `bytes` and perhaps `path`, or bytes alone. Raises UserError that begins with
    `where` for another type and for an image that is not in the table.
    """
    import pyarrow as pa

    names: list[str | None] = [None] * len(column)
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        if column.type.get_field_index("path") >= 0 and not column.null_count:
            names = [name if isinstance(name, str) else None for name in _texts(column)]
        nulls, column = column.null_count, column.field("bytes")
    else:
        nulls = 0
    kinds = {"binary": np.int32, "large_binary": np.int64}
    if str(column.type) not in kinds:
        raise UserError(f"{where}: images of the type {str(column.type)[:80]}, expected bytes")
    if nulls or column.null_count:
        raise UserError(f"{where}: an image that is not in the table, or none")
    _, ends, content = column.buffers()
    dtype = np.dtype(kinds[str(column.type)])
    if ends is None or not len(column):
        return Cells(memoryview(b""), np.zeros(len(column) + 1, np.int64), names)
    bounds = np.frombuffer(ends, dtype, len(column) + 1, column.offset * dtype.itemsize)
    begin, end = int(bounds[0]), int(bounds[-1])
    view = memoryview(content)[begin:end] if content is not None else memoryview(b"")
    return Cells(view, bounds.astype(np.int64) - begin, names)


def _texts(column: Any) -> list[object]:
    """Return the paths of a column's images."""
    try:
        found: list[object] = column.field("path").to_pylist()
    except UnicodeDecodeError:
        return [None] * len(column)
    return found


class _BoundedFile(io.RawIOBase):
    """A regular file, opened, of which a read takes no more memory than it has bytes."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._place = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._place

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    @override
    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self._place, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = []
        while wanted and (piece := os.pread(self._descriptor, wanted, self._place)):
            pieces.append(piece)
            self._place += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    @override
    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
