"""Headers of tar archives, walked without extracting anything; and .tar.gz, unpacked to be walked.

The plain headers that nearly all members have are read here, ten times as fast as tarfile does;
long names, pax headers and everything else that is odd are left to tarfile.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from typing_extensions import override

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular
from uniface_jax.files.unnamed import UnnamedFile

GZIP_MAGIC = b"\x1f\x8b"
MAGIC_OFFSET, MAGIC = 257, b"ustar"
_BLOCK = tarfile.BLOCKSIZE
_AHEAD_BYTES = 2 * _BLOCK  # a header, and all of a label behind it
_PLAIN = (tarfile.REGTYPE[0], tarfile.AREGTYPE[0])
_MAX_HEADER_BYTES = 1 << 20  # of a long name, or of a pax header
_HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_ADLER_MODULUS = 65521
_CHUNK_BYTES = 1 << 14  # several archives are unpacked at a time, of 100 KiB each
_GZIP_WBITS = 16 + zlib.MAX_WBITS  # gzip's header and checksum around the largest window
# Images do not become smaller by gzip, their headers and padding by a few times.
_MAX_EXPANSION, _MIN_UNPACKED_BYTES = 100, 1 << 26


class Member(NamedTuple):
    """A member: its name, where its content begins, bytes; kind: "file", "folder" or "other"."""

    name: str
    begin: int
    size: int
    kind: str


class Archive:
    """An open tar archive: its members, and their bytes.

    Raises:
        UserError: at iteration, where the archive is malformed, cut short, or has a sparse member;
            the message names the archive as `path`, and the member.
    """

    def __init__(self, path: Path, file: IO[bytes]):
        self.path, self._file = path, file
        self._descriptor = file.fileno()
        self._size = os.fstat(self._descriptor).st_size
        self._tar: tarfile.TarFile | None = None
        self._all_by_tarfile = False  # from a global header on
        self._ahead, self._ahead_begin = b"", 0
        self.ended = False  # by the mark of two empty blocks, or one

    def __iter__(self) -> Iterator[Member]:
        place = 0
        while place < self._size:
            self._ahead = os.pread(self._descriptor, _AHEAD_BYTES, place)
            self._ahead_begin = place
            header = self._ahead[:_BLOCK]
            if header[:1] == b"\0" and not header.strip(b"\0"):
                self.ended = True
                return
            if len(header) < _BLOCK:
                raise UserError(f"{self.path}: not a tar archive, or one that is cut short")
            member = None if self._all_by_tarfile else self._plain(header, place)
            if member is not None:
                following = member.begin + -(-member.size // _BLOCK) * _BLOCK
            else:
                member, following = self._odd(header, place)
            if member.kind == "file" and member.begin + member.size > self._size:
                raise UserError(f"{self.path}: {member.name[:200]}: cut short, or a sparse file")
            yield member
            place = following
        if not place:
            raise UserError(f"{self.path}: empty, expected a tar archive")

    def read(self, member: Member) -> bytes:
        """Return the bytes of a member."""
        begin = member.begin - self._ahead_begin
        if begin >= 0 and begin + member.size <= len(self._ahead):
            return self._ahead[begin : begin + member.size]
        return os.pread(self._descriptor, member.size, member.begin)

    def _plain(self, header: bytes, place: int) -> Member | None:
        """Return the member of a plain header; None for one that is for tarfile."""
        if header[156] not in _PLAIN or header[MAGIC_OFFSET : MAGIC_OFFSET + 5] != MAGIC:
            return None
        try:
            size = int(header[124:136].rstrip(b" \0"), 8)
            checksum = int(header[148:156].rstrip(b" \0"), 8)
        except ValueError:
            return None
        # A header's checksum is the sum of its bytes with blanks in its own place. Adler-32 has the
        # sum of all in its lower half, modulo a prime, and takes a twentieth of Python's time.
        expected = checksum + sum(header[148:156]) - 8 * ord(" ") + 1
        if size < 0 or zlib.adler32(header) & 0xFFFF != expected % _ADLER_MODULUS:
            return None
        name = header[:100].partition(b"\0")[0]
        if header[262] == 0 and header[345]:  # POSIX's form, which has the begin of a long name
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        if not name or name.endswith(b"/"):
            return None
        return Member(name.decode("utf-8", "surrogateescape"), place + _BLOCK, size, "file")

    def _odd(self, header: bytes, place: int) -> tuple[Member, int]:
        """Return a member by tarfile, and where the next header begins."""
        self._all_by_tarfile |= header[156:157] == tarfile.XGLTYPE
        try:
            if self._tar is None:
                self._tar = tarfile.TarFile(fileobj=self._file, tarinfo=_Info)
            tar = self._tar
            tar.members = []  # type: ignore[attr-defined]  # it keeps them all otherwise
            if place:  # else what opening has read is the one
                tar.firstmember = None  # type: ignore[attr-defined]
                tar.offset = place
            found = tar.next()
        except (UserError, MemoryError, OSError):
            raise
        except Exception as e:  # tarfile lets through whatever int() and struct stumble over
            reason = " ".join(str(e).split())[:100] or type(e).__name__
            raise UserError(f"{self.path}: not a tar archive, or a damaged one ({reason})") from e
        if found is None:
            raise UserError(
                f"{self.path}: not a tar archive, or a damaged one (no header at byte {place})"
            )
        if found.offset < place or found.size < 0:  # of a pax header's size
            raise UserError(f"{self.path}: {found.name[:200]}: {found.size} bytes")
        if found.issparse():
            raise UserError(f"{self.path}: {found.name[:200]}: cut short, or a sparse file")
        kind = "file" if found.isreg() else "folder" if found.isdir() else "other"
        following: int = tar.offset
        if following <= place:
            raise UserError(f"{self.path}: {found.name[:200]}: a header that leads back")
        return Member(found.name, found.offset_data, found.size, kind), following


class _Info(tarfile.TarInfo):
    """Header of a member that cannot make tarfile turn back, wait or take memory.

    tarfile believes sizes: a negative one leads it back to where it was, for ever, one of a header
    makes it read as much at once, and sparse files are read entry by entry past the end.
    """

    @override
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Info":
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise ValueError(f"{member.name[:80]!r} has {member.size} bytes")
        if member.type in _HEADER_TYPES and member.size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {member.size} bytes")
        return member

    def _refuse_sparse(self, *_: object) -> NoReturn:
        raise ValueError(f"{self.name[:80]!r} is a sparse file")

    # The three forms of pax headers, and GNU's own.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_sparse = _refuse_sparse


def is_gzip(path: Path) -> bool:
    """Return True where a file begins as gzip's do; OSError where it cannot be read."""
    with open_regular(path) as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def unpack_gzip(path: Path) -> UnnamedFile:
    """Return the content of a .gz in a temporary file, whose name nobody sees.

    Memory is bounded, and so is what is written: by _MAX_EXPANSION times the file.

    Raises:
        UserError: the file is damaged, cut short or a bomb, or does not fit on the disk.
    """
    unpacked = UnnamedFile(str(path))
    try:
        with open_regular(path) as file:
            packed = os.fstat(file.fileno()).st_size
            most = _MIN_UNPACKED_BYTES + _MAX_EXPANSION * packed
            for content in _unpacked_pieces(file):
                if unpacked.size + len(content) > most:
                    raise UserError(
                        f"{path}: {packed} bytes unpack to more than {most}, as no images do"
                    )
                unpacked.write(content)
    except (EOFError, zlib.error) as e:
        raise UserError(
            f"{path}: not a tar archive, or gzip that is damaged or cut short ({str(e)[:80]})"
        ) from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    return unpacked


def _unpacked_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of gzip's members, one behind the other, _CHUNK_BYTES at most at a time.

    gzip.GzipFile does the same with two buffers of 128 KiB, from Python 3.12 on.

    Raises:
        zlib.error: a member is damaged (by its checksum too), or something else stands behind it.
        EOFError: the last member is cut short.
    """
    member: Any = None  # one of zlib's decompressors, a type that it doesn't name
    packed = b""
    while packed := packed or file.read(_CHUNK_BYTES):
        if member is None:
            packed = packed.lstrip(b"\0")  # members may be padded
            if not packed:
                continue
            member = zlib.decompressobj(_GZIP_WBITS)
        if content := member.decompress(packed, _CHUNK_BYTES):
            yield content
        packed = member.unconsumed_tail
        if member.eof:
            member, packed = None, member.unused_data
    if member is not None:
        raise EOFError("the end of the file comes before the end of its last member")
