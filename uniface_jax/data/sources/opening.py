"""Opens whatever a user has as a source of training images; the format is told by content."""

from pathlib import Path

from uniface_jax.data.formats.recordio import MAGIC_BYTES
from uniface_jax.data.formats.tfrecord_info import INFO_FILE
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.lists import ListSource, looks_like_list
from uniface_jax.data.sources.pairs import PairSource
from uniface_jax.data.sources.recordio import RecordIOSource
from uniface_jax.data.sources.synthetic import PREFIX, parse_synthetic
from uniface_jax.data.sources.tar import TarSource
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

__all__ = ["Item", "Source", "open_source"]

FORMATS = (
    "identity folders, a .rec or .tar or a folder of them, a list, a .bin, or a TFRecord data set"
)
_SNIFFED_BYTES = 512
_TAR_AT, _TAR_MAGIC = 257, b"ustar"
_PICKLE = b"\x80"  # protocol 2 and later; no text begins with it


def open_source(path: Path | str) -> Source:
    """The source at `path`: one of FORMATS.

    A folder with .rec files is RecordIO, of which train.rec is taken where there are several; a
    folder with .tar files is all of them. `synthetic:CLASSES:IMAGES` is no path (synthetic.py).
    Raises UserError when there is nothing at `path`, when no format is recognised, and whatever
    the format's own reader finds wrong.
    """
    if str(path).startswith(PREFIX):
        return parse_synthetic(str(path))
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
    if next(path.glob("*.tar"), None):
        return TarSource(path)
    return FolderSource(path)


def _open_file(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if head.startswith(MAGIC_BYTES):
        return RecordIOSource(path)
    if head[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC or path.suffix == ".tar":
        return TarSource(path)
    if head.startswith(_PICKLE) or path.suffix == ".bin":
        return PairSource(path)
    if looks_like_list(path):
        return ListSource(path)
    raise UserError(f"{path}: not a known format; expected {FORMATS}")
