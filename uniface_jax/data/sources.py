"""Opens whatever a user has as a source of training images; the format is told by content."""

from pathlib import Path

from uniface_jax.data.dataset_info import INFO_FILE
from uniface_jax.data.folders import FolderSource
from uniface_jax.data.items import Item, Source
from uniface_jax.data.lists import ListSource, looks_like_list
from uniface_jax.data.recordio import MAGIC_BYTES
from uniface_jax.data.recordio_source import RecordIOSource
from uniface_jax.data.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

__all__ = ["Item", "Source", "open_source"]

FORMATS = "identity folders, a folder with a .rec, a .rec, a list, or a TFRecord data set"


def open_source(path: Path | str) -> Source:
    """The source at `path`: one of FORMATS.

    A folder with .rec files is RecordIO, of which train.rec is taken where there are several.
    Raises UserError when there is nothing at `path`, when no format is recognised, and whatever
    the format's own reader finds wrong.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); expected {FORMATS}") from e


def _open_folder(path: Path) -> Source:
    if (path / INFO_FILE).is_file():
        return TFRecordSource(path)
    record_files = sorted(path.glob("*.rec"))
    if len(record_files) > 1 and path / "train.rec" not in record_files:
        raise UserError(f"{path}: several .rec files; give one of them: {record_files[0].name}, …")
    if record_files:
        return RecordIOSource(record_files[0] if len(record_files) == 1 else path / "train.rec")
    return FolderSource(path)


def _open_file(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(len(MAGIC_BYTES))
    if head == MAGIC_BYTES:
        return RecordIOSource(path)
    if looks_like_list(path):
        return ListSource(path)
    raise UserError(f"{path}: not a known format; expected {FORMATS}")
