"""Opens whatever a user has as a source of training images; the format is told by content."""

from pathlib import Path

from uniface_jax.data.folders import FolderSource
from uniface_jax.data.items import Item, Source
from uniface_jax.data.tfrecord import INFO_FILE, TFRecordSource
from uniface_jax.errors import UserError

__all__ = ["Item", "Source", "open_source"]


def open_source(path: Path | str) -> Source:
    """The source at `path`: identity folders, or a TFRecord data set.

    Raises UserError when there is nothing at `path`, when no format is recognised, and whatever
    the format's own reader finds wrong.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if (path / INFO_FILE).is_file():
        return TFRecordSource(path)
    if path.is_dir():
        return FolderSource(path)
    raise UserError(f"{path}: not a known source; expected identity folders or a TFRecord data set")
