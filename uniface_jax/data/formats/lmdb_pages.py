"""Values of an LMDB file, found by its pages without liblmdb.

liblmdb maps the file and believes what its pages say: one damaged page ends the process by a signal
(SIGSEGV, SIGBUS), which nothing can catch. Here each page is read, and looked at before it is
followed. All integers are little endian, as on every machine that writes such sets:

    page 0, 1   meta: u32 magic, u32 version, u64 address, u64 map size, two databases, u64 last
                page, u64 transaction; the later transaction counts. The first database is of free
                pages (its pad is the size of a page), the second one holds the records.
    database    u32 pad, u16 flags, u16 depth, u64 branch, leaf and overflow pages, u64 entries,
                u64 root
    page        u64 number, u16 pad, u16 flags, u16 lower, u16 upper, then the nodes' offsets: u16
    node        u16 low, u16 high, u16 flags, u16 key size, the key; in a branch low, high and flags
                are the page below, in a leaf low and high are the value's size, and the value
                follows, or the number of the page behind whose header it lies
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular, read_at

HEAD_BYTES = 24  # by which the format is told
_HEADER_BYTES = 16  # of a page
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_META_BYTES = 152
_NO_PAGE = (1 << 64) - 1
_PAGE_BYTES = [1 << bits for bits in range(9, 17)]
_BRANCH, _LEAF, _KINDS = 1, 2, 0x6F  # a page's flags: those that say what is in it
_BIG = 1  # a node's flag: the value lies in pages of its own
_NODE_BYTES = 8
_MAX_DEPTH = 32
_BLOCK_BYTES = 1 << 22  # of pages looked at together


@dataclass(frozen=True)
class Nodes:
    """Values of some leaves: keys [K], and where each value lies, int64 [K] and int64 [K]."""

    keys: list[bytes]
    offsets: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class _Tree:
    """The tree of the records: size and number of pages, entries, depth, and its root."""

    page_bytes: int
    pages: int
    entries: int
    depth: int
    root: int


@dataclass(frozen=True)
class _Pages:
    """Pages as bytes, and their N nodes.

    numbers: uint64 [P], of the pages. rows, offsets: int64 [N], in which page of these a node is
    and where in it. fields: int64 [N, 4], its low, high, flags and key's bytes.
    """

    content: bytes
    numbers: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    fields: np.ndarray


def looks_like_lmdb(head: bytes) -> bool:
    """Return True where a file that begins with `head`, HEAD_BYTES or more, is an LMDB one."""
    magic = int.from_bytes(head[_HEADER_BYTES : _HEADER_BYTES + 4], "little")
    return len(head) >= HEAD_BYTES and magic == _MAGIC


class LmdbFile:
    """Records of an LMDB file, in the order of its tree.

    Raises:
        UserError: the file cannot be read, is of another form, is cut short, or has a damaged page;
            the message names the file, and the page.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with open_regular(path) as file:
                self._descriptor = os.dup(file.fileno())
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Nodes]:
        tree = self._tree()
        if tree.root == _NO_PAGE:
            return
        level, seen = np.array([tree.root], np.uint64), np.zeros(tree.pages, bool)
        for _ in range(tree.depth - 1):
            self._claim(level, tree, seen)
            blocks = self._read(level, tree, _BRANCH)
            level = np.concatenate([level[:0], *map(self._children, blocks)])
        self._claim(level, tree, seen)
        for block in self._read(level, tree, _LEAF):
            yield self._values(block, tree)

    def value(self, offset: int, size: int) -> bytes:
        """Return the bytes of a value."""
        return read_at(self._descriptor, offset, size, f"{self.path}: value at byte {offset}")

    def _tree(self) -> _Tree:
        """Return the tree that the later of the two meta pages describes."""
        size = os.fstat(self._descriptor).st_size
        first = self._meta(0, 0)
        second = self._meta(1, first[1].page_bytes)
        tree = max(first, second, key=lambda meta: meta[0])[1]
        if second[1].page_bytes != tree.page_bytes or first[1].page_bytes != tree.page_bytes:
            raise self._damaged(1, "another size of pages than page 0")
        if tree.pages * tree.page_bytes > size:
            raise UserError(
                f"{self.path}: {size} bytes, but {tree.pages} pages of {tree.page_bytes} by its "
                "first pages: cut short, or damaged"
            )
        return tree

    def _meta(self, page: int, offset: int) -> tuple[int, _Tree]:
        """Return transaction and tree by a meta page."""
        head = os.pread(self._descriptor, _META_BYTES, offset)
        if len(head) < _META_BYTES or not looks_like_lmdb(head):
            raise UserError(f"{self.path}: not an LMDB file, or page {page} is damaged")
        version = int.from_bytes(head[20:24], "little")
        if version != _VERSION:
            raise UserError(
                f"{self.path}: LMDB's format {version}; format {_VERSION}, of LMDB 0.9, can be read"
            )
        page_bytes = int.from_bytes(head[40:44], "little")  # stands in the database of free pages
        flags, depth = np.frombuffer(head, "<u2", 2, 92).tolist()
        entries, root = np.frombuffer(head, "<u8", 2, 120).tolist()
        last, transaction = np.frombuffer(head, "<u8", 2, 136).tolist()
        if page_bytes not in _PAGE_BYTES or flags or depth > _MAX_DEPTH or last >= 1 << 48:
            raise self._damaged(page, "of no tree of records")
        return transaction, _Tree(page_bytes, last + 1, entries, depth, root)

    def _claim(self, numbers: np.ndarray, tree: _Tree, seen: np.ndarray) -> None:
        """Note pages as read; UserError for one that is not there, or is read already: a circle."""
        if len(numbers) and int(numbers.max()) >= tree.pages:
            raise self._damaged(int(numbers.max()), f"there are {tree.pages} pages")
        if seen[numbers].any() or len(np.unique(numbers)) != len(numbers):
            raise self._damaged(int(numbers[0]), "two pages lead to it, or to one beside it")
        seen[numbers] = True

    def _read(self, numbers: np.ndarray, tree: _Tree, flag: int) -> Iterator[_Pages]:
        """Yield pages in blocks, once they are known to be leaves or branches by their `flag`."""
        count, size = _BLOCK_BYTES // tree.page_bytes, tree.page_bytes
        for start in range(0, len(numbers), count):
            chosen = numbers[start : start + count]
            pages = b"".join(
                read_at(self._descriptor, number * size, size, f"{self.path}: page {number}")
                for number in chosen.tolist()
            )
            words = np.frombuffer(pages, "<u2").reshape(len(chosen), size // 2)
            kept = words[:, :4].copy().view("<u8")[:, 0]
            lower = words[:, 6].astype(np.int64)
            counts = (lower - _HEADER_BYTES) // 2
            wrong = (kept != chosen) | (words[:, 5] & _KINDS != flag)
            wrong |= (lower < _HEADER_BYTES) | (lower > size) | (lower % 2 != 0)
            if wrong.any():
                raise self._damaged(int(chosen[wrong.argmax()]), "not a page of its tree")
            # Every page's offsets are its words behind the header, as many as it has nodes.
            rows, columns = np.nonzero(np.arange(counts.max(initial=0)) < counts[:, None])
            offsets = words[rows, columns + _HEADER_BYTES // 2].astype(np.int64)
            wrong = (offsets % 2 != 0) | (offsets < lower[rows]) | (offsets > size - _NODE_BYTES)
            begins = rows * size + np.where(wrong, 0, offsets)
            fields = words.reshape(-1)[begins[:, None] // 2 + np.arange(4)].astype(np.int64)
            data = offsets + _NODE_BYTES + fields[:, 3]
            wrong |= data > size
            if wrong.any():
                raise self._damaged(int(chosen[rows[wrong.argmax()]]), "a node outside of it")
            yield _Pages(pages, chosen, rows, offsets, fields)

    def _children(self, block: _Pages) -> np.ndarray:
        """Return the pages below the nodes of branches: uint64."""
        low, high, flags = block.fields[:, :3].astype(np.uint64).T
        children: np.ndarray = low | high << np.uint64(16) | flags << np.uint64(32)
        return children

    def _values(self, block: _Pages, tree: _Tree) -> Nodes:
        """Return the values of leaves' nodes."""
        size = tree.page_bytes
        low, high, flags, key_bytes = block.fields.T
        sizes, big = low | high << 16, flags == _BIG
        data = block.offsets + _NODE_BYTES + key_bytes
        ends = data + np.where(big, 8, sizes)
        wrong = ((flags != 0) & ~big) | (ends > size)
        if wrong.any():
            row = block.rows[wrong.argmax()]
            raise self._damaged(
                int(block.numbers[row]), "a value outside of it, or of another kind"
            )
        begins = block.rows * size + block.offsets + _NODE_BYTES
        keys = [
            block.content[begin:end]
            for begin, end in zip(begins.tolist(), (begins + key_bytes).tolist(), strict=True)
        ]
        offsets = block.numbers[block.rows].astype(np.int64) * size + data
        places = (block.rows * size + data)[big]
        pages = np.frombuffer(block.content, np.uint8)[places[:, None] + np.arange(8)]
        first = pages.view("<u8")[:, 0]
        beyond = first >= tree.pages
        if beyond.any():
            raise self._damaged(int(first[beyond.argmax()]), f"there are {tree.pages} pages")
        offsets[big] = first.astype(np.int64) * size + _HEADER_BYTES
        beyond = offsets + sizes > tree.pages * size
        if beyond.any():
            row = block.rows[beyond.argmax()]
            raise self._damaged(int(block.numbers[row]), "a value longer than the file")
        return Nodes(keys, offsets, sizes)

    def _damaged(self, page: int, what: str) -> UserError:
        return UserError(f"{self.path}: page {page}: {what}: the file is damaged")
