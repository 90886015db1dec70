"""Encoded images and pixels: the checked decoders that every reader uses, and the PNG writer."""

import io
import re
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from uniface_jax.errors import UserError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP")  # Pillow's names; its PPM reads PGM and PBM too
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp")
MAX_PIXELS = 1 << 26  # 64 megapixels: 200 MB of RGB
MAX_SCANS = 100  # of a JPEG; one of 16 bytes costs a pass over all pixels, and photographs have 10
_ORIENTATION_TAG = 0x0112
_EXIF_CHUNKS = (b"eXIf", b"zTXt", b"iTXt", b"tEXt")  # of PNG; as text, of older programs
_APP1, _START_OF_SCAN, _END_OF_IMAGE = 0xE1, 0xDA, 0xD9
_BARE_MARKERS = (0x01, *range(0xD0, 0xD8))  # without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # which say size and components
_BASELINE = (0xC0, 0xC1)
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel


class TooManyPixelsError(UserError):
    """An image whose header says more than MAX_PIXELS."""


def decode(encoded: bytes, name: str) -> np.ndarray:
    """Return the pixels of one encoded image: uint8 RGB [H, W, 3].

    JPEG, PNG, PGM/PPM, BMP and WebP with 8 bits a channel are read; gray becomes three equal
    channels and transparency is dropped. The header's size is checked before any pixel is decoded.
    Photographs are turned upright as their EXIF says, so that one has the same pixels everywhere;
    TensorFlow's decoder does not turn them.

    Args:
        encoded: the bytes of the image.
        name: what messages call it.

    Raises:
        UserError: another format, more than 64 megapixels, or a truncated or corrupt image.

    Example:
        >>> red = np.full((2, 3, 3), (200, 0, 0), np.uint8)
        >>> decode(encode_png(red), "red.png")[0, 0].tolist()
        [200, 0, 0]
    """
    return np.asarray(_load(encoded, name))


def decode_jpeg_into(encoded: bytes | memoryview, out: np.ndarray, order: str) -> bool:
    """Decode a JPEG of the size of `out`, which is upright, by libjpeg-turbo; return True.

    False stands for any other image, and `out` then holds anything; decode says what it is, or what
    is wrong with it. The decoder looks at the size in the header first, and takes no memory of its
    own for more.

    Args:
        encoded: the bytes of the image.
        out: uint8 [H, W, 3].
        order: of the channels, "RGB" or "BGR".
    """
    head = _jpeg_head(encoded)
    if head is None or (not head.of_one_scan and jpeg_scans(encoded) > MAX_SCANS):
        return False
    try:
        decoded = simplejpeg.decode_jpeg(encoded, order, buffer=out)
    except ValueError:
        return False
    # A smaller image leaves its own shape. One that its EXIF turns is left to decode.
    upright = not head.may_be_turned or orientation(encoded) == 1
    return bool(decoded.shape == out.shape and upright)


def check(encoded: bytes, name: str) -> tuple[str, int, int]:
    """Prove by a full decode that `encoded` is an image; return (format, height, width).

    format is one of FORMATS. Raises UserError as decode does.
    """
    with _open(encoded, name) as image:
        _load_pixels(image, name)
        return str(image.format), image.height, image.width


def header(encoded: bytes, name: str) -> tuple[str, int, int]:
    """Return (format, height, width) by the image's header alone; no pixel is decoded.

    format is one of FORMATS. Raises UserError naming `name` where decode would refuse the header.
    """
    with _open(encoded, name) as image:
        return str(image.format), image.height, image.width


def orientation(encoded: bytes | memoryview) -> int:
    """Return the EXIF orientation of an image, 1..8, by its header: 1 is upright, or unknown.

    Takes two microseconds where a JPEG has neither EXIF nor XMP.

    Example:
        >>> orientation(encode_png(np.zeros((8, 8), np.uint8)))
        1
    """
    head = _jpeg_head(encoded)
    if not (head.may_be_turned if head else _may_be_turned(encoded)):
        return 1
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            found = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # of Pillow's parsers: decode refuses the image, or its EXIF is none
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


class _JpegHead(NamedTuple):
    """Tell of a JPEG, by what stands before its first scan.

    may_be_turned: by EXIF or XMP. of_one_scan: that scan is the only one; False too
    where that is not certain.
    """

    may_be_turned: bool
    of_one_scan: bool


def _jpeg_head(encoded: bytes | memoryview) -> _JpegHead | None:
    """Return what a JPEG's head says; None where it is none, or is cut short."""
    may_be_turned, frame, components, place = False, 0, 0, 2
    try:
        if encoded[:2] != b"\xff\xd8":
            return None
        while encoded[place] == 0xFF:
            marker = encoded[place + 1]
            if marker == _START_OF_SCAN:
                # A baseline scan of all components ends the image, whatever follows it.
                whole = frame in _BASELINE and encoded[place + 4] == components
                return _JpegHead(may_be_turned, whole)
            if marker == 0xFF:
                place += 1
            elif marker in _BARE_MARKERS:
                place += 2
            else:
                may_be_turned |= marker == _APP1
                if marker in _FRAMES:
                    frame, components = marker, encoded[place + 9]
                place += 2 + (encoded[place + 2] << 8 | encoded[place + 3])
    except IndexError:  # cut short: decode says so
        return None
    return _JpegHead(may_be_turned, False)


def _may_be_turned(encoded: bytes | memoryview) -> bool:
    """Return False where the chunks of a PNG hold no EXIF and no XMP, and for other formats."""
    if encoded[:4] != b"\x89PNG":
        return encoded[:4] == b"RIFF"  # WebP
    place = 8
    while (kind := bytes(encoded[place + 4 : place + 8])) not in (b"IEND", b""):
        if kind in _EXIF_CHUNKS:
            return True
        place += 12 + int.from_bytes(encoded[place : place + 4], "big")
    return False


def jpeg_scans(encoded: bytes | memoryview) -> int:
    """Return how many times a JPEG goes over its pixels, counted to MAX_SCANS + 1.

    What stands in its segments, or behind its end, as thumbnails and films do, does not count.
    """
    scans, place = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(encoded, place)):
        place, marker = found.end(), found[1][0]
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker not in _BARE_MARKERS:
            place += int.from_bytes(encoded[place : place + 2], "big")
    return scans


def encode_png(image: np.ndarray) -> bytes:
    r"""Return uint8 RGB [H, W, 3] or gray [H, W] as PNG; the same bytes for the same pixels.

    Example:
        >>> encode_png(np.zeros((8, 8), np.uint8))[:4]
        b'\x89PNG'
    """
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"cannot encode an array of shape {image.shape} as PNG")
    return encoded.tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Return uint8 RGB [H, W, 3] or gray [H, W] as JPEG of the given quality, 1..100."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode an array of shape {image.shape} as JPEG")
    return encoded.tobytes()


def _open(encoded: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as e:
        raise TooManyPixelsError(
            f"{name}: {_reason(e)}; at most {MAX_PIXELS} pixels are allowed"
        ) from e
    except Exception as e:  # Pillow's parsers raise whatever they stumble over
        raise UserError(
            f"{name}: not an image that can be read ({len(encoded)} bytes, "
            f"{_reason(e)}); JPEG, PNG, PGM, BMP and WebP are"
        ) from e
    if image.width * image.height > MAX_PIXELS:
        raise TooManyPixelsError(
            f"{name}: {image.width}x{image.height} pixels; at most {MAX_PIXELS} are allowed"
        )
    if image.format == "JPEG" and jpeg_scans(encoded) > MAX_SCANS:
        raise UserError(f"{name}: a JPEG of more than {MAX_SCANS} scans")
    if image.mode not in _PILLOW_MODES:
        raise UserError(f"{name}: pixels of mode {image.mode}; allowed are 8 bits a channel")
    return image


def _load_pixels(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as e:
        raise UserError(f"{name}: the image is truncated or corrupt ({_reason(e)})") from e


def _load(encoded: bytes, name: str) -> Image.Image:
    with _open(encoded, name) as image:
        _load_pixels(image, name)
        try:
            return ImageOps.exif_transpose(image).convert("RGB")
        except Exception as e:
            raise UserError(f"{name}: the image is corrupt ({_reason(e)})") from e


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "unknown format" if "cannot identify image" in text else text or type(error).__name__
