"""Images of a data set that may be damaged, as features are computed of, and their contents."""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm import tqdm
from typing_extensions import override

from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.overlap_list import HASH_BYTES, content_hash
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import Digest
from uniface_jax.evaluate.sets.source_images import SourceImages
from uniface_jax.inference.extract import checked_pixels

_BLOCK = 1024  # images read at a time


class ImagesToClean(SourceImages):
    """Images of a source, in its order; one that cannot be decoded is black.

    So a damaged image ends nothing, and is found as one without a face. What was computed of them
    is known again by their bytes: a source's fingerprint may go by names, which stay when images
    change.
    """

    @cached_property
    def contents(self) -> "Contents":
        """Return what read_contents does, read once."""
        return read_contents(self.source)

    @override
    def pixels(self, index: int) -> np.ndarray:
        try:
            pixels = images.decode(self.source[index].image, self.label(index))
        except UserError:
            return np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        return checked_pixels(pixels, self.label(index))

    @override
    def digest(self, files: Digest) -> str:
        return hashlib.sha256(self.contents.hashes.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Contents:
    """Content of N images: labels int32 [N] and hashes uint8 [N, HASH_BYTES] of their bytes."""

    labels: np.ndarray
    hashes: np.ndarray


def read_contents(source: Source) -> Contents:
    """Read every image once; 20 bytes each stay in memory.

    An image that cannot be read has the hash 0 and, where the source tells it no other way, ends
    the command: its label is unknown. Raises UserError naming it.
    """
    labels = np.empty(len(source), np.int32)
    hashes = np.zeros((len(source), HASH_BYTES), np.uint8)

    def read(index: int) -> None:
        item = source[index]
        labels[index] = item.label
        hashes[index] = np.frombuffer(content_hash(item.image), np.uint8)

    bar = tqdm(total=len(source), desc="read", unit=" images", disable=not sys.stderr.isatty())
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source), _BLOCK):
            block = range(start, min(start + _BLOCK, len(source)))
            for _ in pool.map(read, block):
                pass
            bar.update(len(block))
    return Contents(labels, hashes)
