"""Features of images: any model behind one function, and the loop that runs it over a set."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """A network that embeds aligned faces.

    embed: images uint8 RGB [B, 112, 112, 3] -> features float32 [B, D], the mirror sum included
    where it is asked for. name: what tables call it. hash: SHA-256, hexadecimal, of what was
    loaded. description: one line on what it is and how its input is prepared. plain: as embed, but
    of the images alone; None where `embed` adds no mirrored image that could be left out.
    """

    embed: Embed
    name: str
    hash: str
    description: str
    plain: Embed | None = None

    def embed_apart(self, images: np.ndarray) -> np.ndarray:
        """f(x) and f(mirrored x) side by side, float32 [B, 2 D], of a model that has `plain`."""
        assert self.plain is not None
        return np.concatenate([self.plain(images), self.plain(images[:, :, ::-1])], axis=1)
