"""Images by which the ranges of a network's activations are found, read a few at a time."""

from dataclasses import dataclass

import numpy as np

from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import SourceOptions
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.errors import UserError
from uniface_jax.inference.extract import checked_pixels
from uniface_jax.inference.model import Feeds
from uniface_jax.inference.scale_probe import some_of

BATCH_IMAGES = 4  # a histogram is made of all activations of a batch, 30 MB an image of IResNet100


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Images of a source that were chosen by a seed: their numbers, rising, int64 [N]."""

    source: Source
    indices: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, start: int, stop: int) -> np.ndarray:
        """Return images uint8 RGB [stop - start, 112, 112, 3].

        Raises UserError naming one that cannot be read, or is of another size.
        """
        return np.stack([self._image(index) for index in self.indices[start:stop].tolist()])

    def some(self) -> np.ndarray:
        """Return a few of all, from which a model's input can be told (Model.settled)."""
        rows = some_of(len(self))
        return np.stack([self._image(int(self.indices[row])) for row in rows])

    def record(self) -> dict[str, object]:
        """Return what a report says of the set."""
        return {
            "source": self.source.name,
            "images": len(self),
            "of": len(self.source),
            "seed": self.seed,
            "fingerprint": self.source.fingerprint(),
        }

    def _image(self, index: int) -> np.ndarray:
        item = self.source[index]
        return checked_pixels(item.image, f"--calibration: {self.source.name}: {item.name}")


def choose(given: str, images: int, seed: int, *, skip_faults: bool = False) -> CalibrationSet:
    """Choose `images` images, or all where there are fewer, of what `given` names.

    given: any data set, a folder of photographs or a list. Raises UserError as open_images, and
    for one without images.
    """
    source = open_images(given, SourceOptions(skip_faults=skip_faults))
    if not len(source):
        raise UserError(f"--calibration: {given}: no images; expected aligned faces of 112x112")
    count = min(images, len(source))
    indices = np.random.default_rng(seed).choice(len(source), count, replace=False)
    return CalibrationSet(source, np.sort(indices), seed)


class Batches:
    """Batches of a set as onnxruntime's CalibrationDataReader has them: in order, or a range."""

    def __init__(self, images: CalibrationSet, feeds: Feeds) -> None:
        self._images, self._feeds = images, feeds
        self._size = feeds.batch or BATCH_IMAGES
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self._images) // self._size)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin again at batch `start_index`, and end before `end_index`."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return what the next run is fed, None behind the last one."""
        if self._next >= self._end:
            return None
        start = self._next * self._size
        stop = min(start + self._size, len(self._images))
        self._next += 1
        (feed,) = self._feeds(self._images.pixels(start, stop))
        return feed
