"""A model as inference has it: a function from images to features, its name and its digest."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uniface_jax.data.formats.landmarks import mirrored as mirrored_landmarks
from uniface_jax.inference.mirror import mirrored

# Images uint8 RGB [B, 112, 112, 3], and landmarks float32 [B, 5, 2] for a model that takes them,
# -> features float32 [B, D], not normalized.
Embed = Callable[..., np.ndarray]
Settle = Callable[[np.ndarray], "Model"]


@dataclass(frozen=True, eq=False)
class QualityHead:
    """Linear head that was trained to say an image's quality of its feature.

    kernel: float [D]. bias: a number. images: how many an embedded feature is the sum of, 2 with
    the mirrored one; the quality is then the mean of theirs.
    """

    kernel: np.ndarray
    bias: float
    images: int

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the qualities float64 [K] of features [K, D], higher ones being better."""
        wide = np.asarray(features, np.float64)
        scores: np.ndarray = wide @ self.kernel.astype(np.float64) / self.images + self.bias
        return scores

    @property
    def digest(self) -> str:
        """Return the SHA-256 of its numbers, hexadecimal."""
        numbers = np.append(np.asarray(self.kernel, "<f4"), np.float32(self.bias))
        return hashlib.sha256(numbers.astype("<f4").tobytes()).hexdigest()


class Feeds(Protocol):
    """Gives the arrays that an ONNX graph is fed of images, for other tools than inference."""

    @property
    def batch(self) -> int | None:
        """Return the number of images of a run, None for any."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Return the entries by which an ONNX file says that it wants these pixels."""
        ...

    def __call__(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return what each run is fed, by the input's name, of images uint8 RGB [B, 112, 112, 3].

        The last run of a fixed batch is filled up with its last image.
        """
        ...


@dataclass(frozen=True)
class Model:
    """A network that embeds aligned faces.

    embed: the features, the mirror sum included where it is asked for. name: of the model in
    tables. hash: SHA-256, hexadecimal, of what was loaded. description: one line on the kind of
    model and how its input is prepared. plain: as embed, but of the images alone; None where
    `embed` adds no mirrored image that could be left out. notes: lines for who uses the model.
    settle: where faces must tell how the input is prepared, see settled(); `embed` is not to be
    called before. takes_landmarks: `embed` takes the landmarks of each image too. quality: of the
    features that `embed` gives; None where no such head was trained with the network. feeds: of an
    ONNX file, once it is settled.
    """

    embed: Embed
    name: str
    hash: str
    description: str
    plain: Embed | None = None
    notes: tuple[str, ...] = ()
    settle: Settle | None = None
    takes_landmarks: bool = False
    quality: QualityHead | None = None
    feeds: Feeds | None = None

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
