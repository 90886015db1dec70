"""Structure of encoded images, checked without decoding them: microseconds instead of hundreds.

A download that was cut short, a page of HTML saved as .jpg and a file of zeros are found here; for
PNG, through its checksums, every flipped bit. A decoder alone could find a JPEG whose
compressed pixels changed but whose markers did not: most decoders give a distorted image for it.
"""

import struct
import zlib

from uniface_jax.data.formats import images
from uniface_jax.errors import UserError

JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# SOF0..SOF15 carry the size; C4, C8 and CC of that range are tables and extensions.
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}  # markers without a length
_JPEG_COMPONENTS = (1, 3, 4)
_PNG_CHUNK_BYTES = 12  # length, type, checksum


def inspect(encoded: bytes, name: str) -> tuple[str, int, int]:
    """Return (format, height, width) of an encoded image whose structure is whole.

    JPEG: its segments up to the pixels, and the end marker after them. PNG: every chunk and its
    checksum up to the last one. Others: their header.

    Args:
        encoded: the bytes of the image.
        name: what messages call it.

    Returns:
        One of images.FORMATS, and the size in pixels.

    Raises:
        UserError: the structure is not whole, or the image has more than images.MAX_PIXELS.

    Example:
        >>> import numpy as np
        >>> png = images.encode_png(np.zeros((4, 6, 3), np.uint8))
        >>> inspect(png, "black.png")
        ('PNG', 4, 6)
        >>> inspect(png[:-1], "black.png")
        Traceback (most recent call last):
        ...
        uniface_jax.errors.UserError: black.png: the image is truncated (78 bytes)
    """
    try:
        if encoded[:3] == JPEG_MAGIC:
            kind, (height, width) = "JPEG", _jpeg_size(encoded)
        elif encoded[:8] == PNG_MAGIC:
            kind, (height, width) = "PNG", _png_size(encoded)
        else:
            return images.header(encoded, name)
    except (IndexError, struct.error):
        raise UserError(f"{name}: the image is truncated ({len(encoded)} bytes)") from None
    except _StructureError as e:
        raise UserError(f"{name}: the image is truncated or corrupt ({e})") from None
    if not 0 < height * width <= images.MAX_PIXELS:
        raise UserError(f"{name}: {width}x{height} pixels; 1 to {images.MAX_PIXELS} are allowed")
    return kind, height, width


class _StructureError(Exception):
    """A fault in an image's structure; the message says which."""


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Return (height, width) by the markers up to the pixels."""
    place, size = 2, None
    while True:
        if encoded[place] != 0xFF:
            raise _StructureError(f"no marker at byte {place}")
        marker = encoded[place + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            place += 1
            continue
        if marker in _BARE_MARKERS:
            place += 2
            continue
        length = encoded[place + 2] << 8 | encoded[place + 3]
        if length < 2:
            raise _StructureError(f"a segment of {length} bytes at byte {place}")
        if marker in _SIZE_MARKERS:
            bits, height, width, components = struct.unpack_from(">BHHB", encoded, place + 4)
            if bits != 8 or components not in _JPEG_COMPONENTS:
                raise _StructureError(f"{components} components of {bits} bits")
            size = height, width
        elif marker == _START_OF_SCAN:
            break
        place += 2 + length
    if size is None:
        raise _StructureError("no size before the pixels")
    # Inside of the pixels FF is always followed by 00 or a restart, so that this is the real end.
    if encoded.rfind(_END_OF_IMAGE, place) < 0:
        raise _StructureError("no end marker")
    return size


def _png_size(encoded: bytes) -> tuple[int, int]:
    """Return (height, width) after comparing every chunk with its checksum."""
    place, has_pixels = len(PNG_MAGIC), False
    view = memoryview(encoded)
    while True:
        length, kind = struct.unpack_from(">I4s", encoded, place)
        end = place + 8 + length
        (checksum,) = struct.unpack_from(">I", encoded, end)
        if zlib.crc32(view[place + 4 : end]) != checksum:
            raise _StructureError(f"a wrong checksum in the chunk at byte {place}")
        if place == len(PNG_MAGIC):
            if kind != b"IHDR" or length != 13:
                raise _StructureError("no size at its beginning")
            width, height, bits = struct.unpack_from(">IIB", encoded, place + 8)
            if bits > 8:
                raise _StructureError(f"{bits} bits a channel; allowed are 8 at most")
        has_pixels |= kind == b"IDAT"
        if kind == b"IEND":
            break
        place += _PNG_CHUNK_BYTES + length
    if not has_pixels:
        raise _StructureError("no pixels")
    return height, width
