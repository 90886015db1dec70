"""RecordIO as MXNet and insightface write it, byte for byte."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.recordio import LENGTH_BITS, MAGIC_BYTES
from uniface_jax.data.sources.base import Item
from uniface_jax.files.atomic import replacing, write_bytes


def framed(payload: bytes) -> bytes:
    """Return one record, split where the magic stands at a 4-byte boundary: the reader undoes that.

    Raises:
        ValueError: a part has 2^29 bytes or more, which the format cannot hold.
    """
    parts, start = [], 0
    place = payload.find(MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            parts.append(payload[start:place])
            start = place + 4
        place = payload.find(MAGIC_BYTES, place + 4 if place % 4 == 0 else place + 1)
    parts.append(payload[start:])
    record = []
    for number, part in enumerate(parts):
        if len(part) >> LENGTH_BITS:
            raise ValueError(
                f"a part of {len(part)} bytes; RecordIO holds {1 << LENGTH_BITS} at most"
            )
        last = number == len(parts) - 1
        flag = 0 if len(parts) == 1 else 1 if number == 0 else 3 if last else 2
        head = MAGIC_BYTES + struct.pack("<I", flag << LENGTH_BITS | len(part))
        record += [head, part, bytes(-len(part) % 4)]
    return b"".join(record)


def image_payload(key: int, labels: Sequence[float], image: bytes) -> bytes:
    """Return a payload with its header: one label stands in the header, several follow it."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], key, 0) + image
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0, key, 0, *labels) + image


def write_insightface(
    path: Path | str,
    items: Iterable[Item],
    num_images: int,
    size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE),
) -> None:
    """Write train.rec, train.idx and property into the folder `path`, in insightface's layout.

    Each file appears when it is complete.

    Args:
        path: the folder.
        items: `num_images` of them, all images of a class together and classes ascending from 0, as
            the layout asks: an identity record holds the range of its images.
        num_images: N.
        size: height and width of the images, for `property`.

    Raises:
        ValueError: the items are not in that order, or of another number.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.sources.recordio import RecordIOSource
        >>> items = [Item(b"ann", 0, ""), Item(b"bob", 1, "")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_insightface(folder, items, num_images=2)
        ...     RecordIOSource(Path(folder) / "train.rec")[1]
        Item(image=b'bob', label=1, name='2')
    """
    path = Path(path)
    firsts: list[int] = []
    key, offset, index = 0, 0, []
    with replacing(path / "train.rec") as temporary, temporary.open("wb") as file:

        def write(payload: bytes) -> None:
            nonlocal key, offset
            index.append(f"{key}\t{offset}\n")
            offset += file.write(framed(payload))
            key += 1

        # Key 0 declares what comes: its length does not depend on the numbers, so it is rewritten.
        write(image_payload(0, (0, 0), b""))
        for item in items:
            if item.label == len(firsts):
                firsts.append(key)
            elif item.label != len(firsts) - 1:
                raise ValueError(f"{item.name}: label {item.label} after {len(firsts) - 1}")
            write(image_payload(key, (item.label,), item.image))
        if key != num_images + 1:
            raise ValueError(f"{key - 1} items, {num_images} were announced")
        for number, first in enumerate(firsts):
            end = firsts[number + 1] if number + 1 < len(firsts) else num_images + 1
            write(image_payload(key, (first, end), b""))
        file.seek(0)
        file.write(framed(image_payload(0, (num_images + 1, key), b"")))
    write_bytes(path / "train.idx", "".join(index).encode())
    write_bytes(path / "property", f"{len(firsts)},{size[0]},{size[1]}".encode())
