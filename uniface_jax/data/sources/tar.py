"""WebDataset-style tar shards as a source: samples are the files that share a name up to a dot.

A sample is `KEY.jpg` (or another image) with `KEY.cls`, the class as text, or `KEY.json` with the
class under one of JSON_KEYS, or under a key that the user names. Archives without either are taken
as identity folders: the class is the image's folder. Nothing is extracted; images are read where
they lie in the archives. Of gzip nothing can be read but from its beginning on: such archives are
unpacked once, to temporary files without a name.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from tqdm import tqdm
from typing_extensions import override

from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.data.formats.tar_members import Archive, Member, is_gzip, unpack_gzip
from uniface_jax.data.sources.base import Item, digest
from uniface_jax.data.sources.folders import MAX_FILE_BYTES
from uniface_jax.data.sources.indexed import Part, SharedSource
from uniface_jax.data.sources.labels import classes_of, natural_key
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import parse_json
from uniface_jax.files.kept_open import KeptOpen
from uniface_jax.files.reading import open_regular
from uniface_jax.files.unnamed import UnnamedFile

JSON_KEYS = ("label", "cls", "class", "identity")
_MAX_LABEL_BYTES = 1 << 16
_MAX_NAMED_FILES = 5
ARCHIVES = ("*.tar", "*.tar.gz", "*.tgz")  # in a folder
_UNPACKING = 4  # archives at a time

_Work = TypeVar("_Work")


@dataclass(frozen=True)
class TarPart(Part):
    """Images in tar archives: archive, offset and size of each, its class and its name; [K].

    archives: the archives' names; files: where their bytes are.
    """

    archives: list[Path]
    files: KeptOpen
    archive: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    names: Names

    @override
    def __getitem__(self, index: int) -> Item:
        number, size = int(self.archive[index]), int(self.lengths[index])
        path, name = self.archives[number], self.names[index]
        try:
            image = self.files.read(number, int(self.offsets[index]), size)
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        if len(image) != size:
            raise UserError(f"{path}: {name}: the archive was cut short")
        return Item(image, int(self.labels[index]), f"{path.name}/{name}")


class TarSource(SharedSource):
    """Images of a tar archive, or of all `*.tar` in a folder by natural order.

    In the archives' order; item names are archive/member. Labels that are not 0..C-1 are mapped as
    in lists, and class_names then holds them. Opening reads the archives' headers, not the images.

    Raises:
        UserError: an archive is malformed or cut short, an image has no label where
            others have one, a label is of another form, or there is no image at all; the message
            names archive and member.

    Example:
        >>> import io, tarfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tarfile.open(Path(folder) / "0.tar", "w") as tar:
        ...         for name, content in (("7.jpg", b"an image"), ("7.cls", b"0")):
        ...             member = tarfile.TarInfo(name)
        ...             member.size = len(content)
        ...             tar.addfile(member, io.BytesIO(content))
        ...     TarSource(Path(folder))[0]
        Item(image=b'an image', label=0, name='0.tar/7.jpg')
    """

    _images: TarPart

    def __init__(
        self,
        path: Path | str,
        json_key: str | None = None,
        archives: Sequence[Path] | None = None,
    ):
        """Read the archives' headers.

        Args:
            path: an archive, or a folder of them; what messages call the source.
            json_key: of the class in a .json, None for JSON_KEYS.
            archives: the archives, where `path` is a pattern of their names.
        """
        path = Path(path)
        self.name = str(path)
        self.notes: list[str] = []
        if archives is None:
            archives = find_archives(path) if path.is_dir() else [path]
        unpacked = _unpacked(archives)
        self._unpacked = list(unpacked.values())
        files = [unpacked[archive].path if archive in unpacked else archive for archive in archives]
        index = _Index(self.name, json_key)
        with _progress(zip(archives, files, strict=True), len(archives), "index") as bar:
            for number, (archive, file) in enumerate(bar):
                index.add(number, archive, file)
        if unpacked:
            room = sum(file.size for file in unpacked.values())
            self.notes.append(
                f"{path}: gzip is read from its beginning alone: {room / 2**20:.0f} MiB were "
                "unpacked to temporary files, at every start anew; a set that convert writes "
                "needs neither"
            )
        self.notes += index.unended
        labels, self.class_names, self.num_classes = index.labels()
        if index.others:
            shown = ", ".join(index.others[:_MAX_NAMED_FILES])
            more = ", …" if len(index.others) > _MAX_NAMED_FILES else ""
            self.notes.append(f"{path}: left out, neither image nor label: {shown}{more}")
        if index.unlabeled:
            self.notes.append(
                f"{path}: classes are the images' folders; the .json files have only the keys "
                f"{index.unlabeled} (--json_key chooses one)"
            )
        self._images = TarPart(
            list(archives),
            KeptOpen(files),
            np.frombuffer(index.archive, np.int32),
            np.frombuffer(index.offsets, np.int64),
            np.frombuffer(index.lengths, np.int64),
            labels,
            index.names,
        )

    @override
    def fingerprint(self) -> str:
        images = self._images
        return digest(*images.names.arrays(), images.archive, images.lengths, images.labels)


class _Index:
    """Content of the archives' headers, collected sample by sample."""

    def __init__(self, source: str, json_key: str | None):
        self.source = source
        self.json_keys = JSON_KEYS if json_key is None else (json_key,)
        self.unlabeled = ""  # the keys of the first .json that has no class
        self.archive, self.offsets, self.lengths = array("i"), array("q"), array("q")
        self.names = Names()
        self.others: list[str] = []
        self.unended: list[str] = []
        self._codes: dict[str, int] = {}  # a label or a folder, by the order in which they came up
        self._labels = array("i")  # the code of each image's label, -1 while it has none
        self._folders = array("i")
        self._labeled = False

    def add(self, number: int, archive: Path, file: Path) -> None:
        """Add the images of one archive, whose bytes are in `file`."""
        try:
            with open_regular(file) as opened:
                self._read(number, archive, opened)
        except OSError as e:
            raise UserError(f"{archive}: cannot be read ({e.strerror or e})") from e

    def _read(self, number: int, archive: Path, file: IO[bytes]) -> None:
        """Add the images of the samples in an open archive."""
        key, label, images = None, None, 0
        members = Archive(archive, file)
        for member in members:
            if member.kind != "file":
                if member.kind == "other" and len(self.others) <= _MAX_NAMED_FILES:
                    self.others.append(f"{member.name[:200]} (no regular file)")
                continue
            folder, _, base = member.name.rpartition("/")
            if base.startswith("."):
                continue
            stem, _, suffix = base.partition(".")
            if (folder, stem) != key:
                self._close(images, label)
                key, label, images = (folder, stem), None, 0
            suffix = suffix.lower()
            if f".{suffix}".endswith(SUFFIXES):
                self._add_image(number, archive, member, folder)
                images += 1
            elif suffix in ("cls", "json"):
                label = self._label(members, member) or label
            elif len(self.others) <= _MAX_NAMED_FILES:
                self.others.append(member.name[:200])
        self._close(images, label)
        if not members.ended:
            self.unended.append(f"{archive}: ends without a tar's end mark: it may be cut short")

    def _add_image(self, number: int, archive: Path, member: Member, folder: str) -> None:
        """Add one image of an archive."""
        if member.size > MAX_FILE_BYTES:
            raise UserError(
                f"{archive}: {member.name[:200]}: {member.size} bytes; an image has at most "
                f"{MAX_FILE_BYTES}"
            )
        self.archive.append(number)
        self.offsets.append(member.begin)
        self.lengths.append(member.size)
        self.names.append(member.name)
        self._labels.append(-1)
        self._folders.append(self._codes.setdefault(f"{folder}/", len(self._codes)))

    def _label(self, archive: Archive, member: Member) -> str | None:
        """Return the class that a .cls or .json gives, as text; None for a .json without one."""
        where = f"{archive.path}: {member.name[:200]}"
        if member.size > _MAX_LABEL_BYTES:
            raise UserError(f"{where}: {member.size} bytes; a label has at most {_MAX_LABEL_BYTES}")
        content = archive.read(member)
        if member.name.lower().endswith(".cls"):
            text = content.decode("utf-8", "replace").strip()
            if not text or "\n" in text:
                raise UserError(f"{where}: {text[:40]!r}, expected a class")
            return text
        try:
            values = parse_json(content)
        except ValueError as e:
            raise UserError(f"{where}: not JSON ({str(e)[:80]})") from e
        if not isinstance(values, dict):
            return None
        for key in self.json_keys:
            found = _class_of(values.get(key))
            if found is not None:
                return found
        self.unlabeled = self.unlabeled or ", ".join(str(key)[:40] for key in values)[:200]
        return None

    def _close(self, images: int, label: str | None) -> None:
        """End a sample: its label goes to its images."""
        if label is not None and images:
            self._labeled = True
            code = self._codes.setdefault(label, len(self._codes))
            self._labels[len(self._labels) - images :] = array("i", [code] * images)

    def labels(self) -> tuple[np.ndarray, list[str] | None, int]:
        """Return classes int32 [N], their names or None where they are 0..C-1, and C."""
        if not len(self.names):
            raise UserError(f"{self.source}: no image in it; expected KEY.jpg with KEY.cls")
        codes = np.frombuffer(self._labels if self._labeled else self._folders, np.int32)
        if codes.min() < 0:
            worst = self.names[int(np.argmin(codes))]
            raise UserError(
                f"{self.source}: {worst}: no .cls or .json beside it gives its class{self._hint()}"
            )
        used, places = np.unique(codes, return_inverse=True)
        known = list(self._codes)
        texts = [known[code] if self._labeled else known[code][:-1] for code in used.tolist()]
        if texts == [""] or (len(texts) == 1 and not self._labeled and self.unlabeled):
            raise UserError(
                f"{self.source}: no .cls, .json or folder gives an image's class{self._hint()}"
            )
        if self._labeled:
            self.unlabeled = ""
        return classes_of(texts, places)

    def _hint(self) -> str:
        """Return what the user may do about .json files without a class."""
        if not self.unlabeled:
            return ""
        return (
            f"; expected a .json's class under {' or '.join(self.json_keys)}, found the keys "
            f"{self.unlabeled}: python -m uniface_jax.convert --json_key=KEY chooses one"
        )


def _class_of(value: object) -> str | None:
    """Return a value of a .json as a class, 1.0 as 1; None for what is no class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    return None


def find_archives(folder: Path) -> list[Path]:
    """Return the archives in a folder, in natural order."""
    found = {file for pattern in ARCHIVES for file in folder.glob(pattern)}
    return sorted(found, key=lambda file: natural_key(file.name))


def _unpacked(archives: Sequence[Path]) -> dict[Path, UnnamedFile]:
    """Return those of the archives that are gzip, unpacked; several at a time."""
    try:
        packed = [archive for archive in archives if is_gzip(archive)]
    except OSError as e:
        raise UserError(f"{e.filename}: cannot be read ({e.strerror})") from e
    if not packed:
        return {}
    pool = ThreadPoolExecutor(_UNPACKING, "unpack")
    try:
        with _progress(pool.map(unpack_gzip, packed), len(packed), "unpack") as shown:
            return dict(zip(packed, shown, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(work: Iterable[_Work], total: int, what: str) -> "tqdm[_Work]":
    """Return `work` with a progress bar, where it is long and somebody looks."""
    hidden = total < 2 or not sys.stderr.isatty()
    return tqdm(work, total=total, unit=" archives", desc=what, disable=hidden)
