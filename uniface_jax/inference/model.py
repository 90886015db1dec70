"""A model as inference has it: a function from images to features, its name and its digest."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uniface_jax.data.formats.landmarks import mirrored as mirrored_landmarks
from uniface_jax.inference.mirror import mirrored

# Images uint8 RGB [B, 112, 112, 3], and landmarks float32 [B, 5, 2] for a model that takes them,
# -> features float32 [B, D], not normalized.
Embed = Callable[..., np.ndarray]
Settle = Callable[[np.ndarray], "Model"]


@dataclass(frozen=True)
class Model:
    """A network that embeds aligned faces.

    embed: the features, the mirror sum included where it is asked for. name: of the model in
    tables. hash: SHA-256, hexadecimal, of what was loaded. description: one line on the kind of
    model and how its input is prepared. plain: as embed, but of the images alone; None where
    `embed` adds no mirrored image that could be left out. notes: lines for who uses the model.
    settle: where faces must tell how the input is prepared, see settled(); `embed` is not to be
    called before. takes_landmarks: `embed` takes the landmarks of each image too.
    """

    embed: Embed
    name: str
    hash: str
    description: str
    plain: Embed | None = None
    notes: tuple[str, ...] = ()
    settle: Settle | None = None
    takes_landmarks: bool = False

    def settled(self, faces: np.ndarray) -> "Model":
        """Return the model as it fits aligned faces, uint8 RGB [N, 112, 112, 3], N > 0.

        It is the model itself where its file tells how its input is prepared. Raises UserError,
        which names --input_scale, where neither the file nor the faces tell.
        """
        return self if self.settle is None else self.settle(faces)

    def embed_apart(self, images: np.ndarray, *landmarks: np.ndarray) -> np.ndarray:
        """Return f(x) and f(mirrored x) side by side, float32 [B, 2 D]; the model has `plain`."""
        assert self.plain is not None
        other = self.plain(mirrored(images), *map(mirrored_landmarks, landmarks))
        return np.concatenate([self.plain(images, *landmarks), other], axis=1)
