"""Images of a data set as features are computed of: by record, and one digest for all."""

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Source
from uniface_jax.evaluate.sets.image_sets import Digest, ImageSet
from uniface_jax.inference.extract import checked_pixels


class SourceImages(ImageSet):
    """Images of a source, in its order and as they are in it, under the name `name`."""

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source

    @override
    def __len__(self) -> int:
        return len(self.source)

    @override
    def label(self, index: int) -> str:
        return f"{self.source.name}: record {index}"

    @override
    def pixels(self, index: int) -> np.ndarray:
        return checked_pixels(self.source[index].image, self.label(index))

    @override
    def landmarks(self, index: int) -> np.ndarray:
        found: np.ndarray = self.source.landmarks(np.array([index]))[0]
        return found

    @override
    def digest(self, files: Digest) -> str:
        return self.source.fingerprint()
