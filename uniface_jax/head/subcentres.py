"""Sub-centers after training: which of a class's prototypes is its own, and who is far from it.

Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
ECCV 2020: of K prototypes a class, one comes to stand for the person and the others for wrong
labels; images beyond 75 degrees of the dominant one are dropped, and the network is trained again.
"""

from typing import NamedTuple

import numpy as np

from uniface_jax.head.blocks import NORM_FLOOR

_IMAGES = 4096  # whose classes' prototypes are held at a time


class Dominant(NamedTuple):
    """Dominant prototypes, and the images' angles.

    center: int [C], the prototype that most of the class's images are nearest to, the first of
    several; 0 for a class without images. degrees: float64 [N], of each image from its class's.
    """

    center: np.ndarray
    degrees: np.ndarray


def dominant(features: np.ndarray, labels: np.ndarray, prototypes: np.ndarray) -> Dominant:
    """Return each class's dominant prototype, and each image's angle from that of its class.

    Args:
        features: [N, D].
        labels: int [N], in 0..C-1.
        prototypes: [C, K, D], or [C, D] with one a class.

    Example:
        >>> prototypes = np.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> features = np.array([[2.0, 0.0], [1.0, 0.1], [0.0, 3.0]])
        >>> found = dominant(features, np.zeros(3, int), prototypes)
        >>> found.center, found.degrees.round()
        (array([0]), array([ 0.,  6., 90.]))
    """
    several = np.asarray(prototypes)
    several = several[:, None] if several.ndim == 2 else several
    labels = np.asarray(labels)
    cosines = np.empty((len(features), several.shape[1]))
    for start in range(0, len(features), _IMAGES):
        part = slice(start, start + _IMAGES)
        own = _unit(several[labels[part]])
        cosines[part] = np.einsum("nd,nkd->nk", _unit(np.asarray(features[part])), own)
    votes = np.zeros(several.shape[:2], np.int64)
    np.add.at(votes, (labels, cosines.argmax(1)), 1)
    center = votes.argmax(1)
    nearest = cosines[np.arange(len(labels)), center[labels]]
    return Dominant(center, np.degrees(np.arccos(np.clip(nearest, -1, 1))))


def _unit(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    unit: np.ndarray = wide / np.maximum(norms, NORM_FLOOR)
    return unit
