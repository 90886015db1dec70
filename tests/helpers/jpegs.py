"""JPEGs that ask much of a decoder."""

import io

import numpy as np
from PIL import Image


def progressive_jpeg(size: int = 64, more_scans: int = 0) -> bytes:
    """Return a gray square, whose last scan comes so many times more: 16 bytes and a pass each."""
    out = io.BytesIO()
    Image.fromarray(np.full((size, size), 90, np.uint8)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * more_scans + whole[-2:]
