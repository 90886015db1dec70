"""Images far from their class's dominant sub-center, by the prototypes of a trained workdir."""

from pathlib import Path

import numpy as np

from uniface_jax.clean.findings import OFF_CENTER, Finding
from uniface_jax.errors import UserError
from uniface_jax.head.subcentres import dominant


def read_prototypes(workdir: str, num_classes: int) -> np.ndarray:
    """Read the prototypes of a workdir that was trained on a set of so many classes.

    They are [C, K, D], or [C, D] of a training without sub-centers. Raises UserError for what is no
    workdir, or one of another number of classes.
    """
    if not Path(workdir).is_dir():
        raise UserError(
            f"--checks=subcenters: {workdir} is no workdir; only one has prototypes of its classes"
        )
    # Not at the top: all else does without the checkpoint library.
    from uniface_jax.checkpoints.reading import read_head

    prototypes, _ = read_head(workdir)
    if len(prototypes) != num_classes:
        raise UserError(
            f"--checks=subcenters: {workdir} was trained on {len(prototypes)} classes, and the set "
            f"has {num_classes}; give the data set of its training"
        )
    return prototypes


def angle_findings(
    features: np.ndarray, labels: np.ndarray, prototypes: np.ndarray, most: float
) -> list[Finding]:
    """Return the images beyond `most` degrees of their class's dominant prototype, the worst first.

    features [N, D], of the network that the prototypes were trained with; labels int [N];
    prototypes [C, K, D] or [C, D]. Raises UserError where the features have another length.

    Example:
        >>> prototypes = np.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> features = np.array([[2.0, 0.0], [1.0, 0.1], [0.0, 3.0]])
        >>> found = angle_findings(features, np.zeros(3, int), prototypes, 75)
        >>> [(finding.image, finding.score) for finding in found]
        [(2, 90.0)]
    """
    if features.shape[1] != prototypes.shape[-1]:
        raise UserError(
            f"--checks=subcenters: features of {features.shape[1]} numbers, and prototypes of "
            f"{prototypes.shape[-1]}"
        )
    found = dominant(features, labels, prototypes)
    beyond = np.flatnonzero(found.degrees > most)
    worst = beyond[np.argsort(-found.degrees[beyond], kind="stable")]
    count = 1 if prototypes.ndim == 2 else prototypes.shape[1]
    return [
        Finding(
            OFF_CENTER,
            float(found.degrees[image]),
            f"{found.degrees[image]:.1f} degrees from prototype {found.center[labels[image]]} of "
            f"{count}, which most images of the class are nearest to",
            int(labels[image]),
            image,
        )
        for image in worst.tolist()
    ]
