"""Overlap of a training set with sets to test networks on: by images, features and names."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.clean.duplicates import exact_originals
from uniface_jax.clean.people import People, best_others
from uniface_jax.clean.scale import Scale
from uniface_jax.clean.set_images import ImagesToClean
from uniface_jax.data.formats.overlap_list import HASH_BYTES, content_hash
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.above import pairs_above
from uniface_jax.evaluate.metrics.verification import normalize
from uniface_jax.evaluate.protocols.ijb.images import read_images
from uniface_jax.evaluate.protocols.ijb.protocol import CROPS, NAMES, IjbCrops
from uniface_jax.evaluate.sets.image_sets import ImageFiles, ImageSet
from uniface_jax.evaluate.sets.pair_sets import (
    PAIR_FILES,
    OpenedPairs,
    open_pair_sets,
    with_images,
)
from uniface_jax.evaluate.sets.rfw_trees import open_rfw
from uniface_jax.evaluate.sets.tinyface_tree import read_tinyface
from uniface_jax.files.paths import split_parts

RFW, TINYFACE = "rfw", "tinyface"  # in front of their folders
BY_IMAGE, BY_FEATURES, BY_NAME = "image", "features", "name"
_SOURCES = (".rec", ".tar", ".gz", ".tgz", ".lst")  # files of labeled images, not of pairs
_MIN_WORDS = 2  # of a name; a number or one word names nobody


@dataclass(frozen=True, eq=False)
class ForeignSet:
    """Images that networks are tested on.

    encoded: maps an image's number to its bytes. people: the name of the person in each image,
    where there are names.
    """

    images: ImageSet
    encoded: Callable[[int], bytes]
    people: Sequence[str] | None


@dataclass(frozen=True)
class Shared:
    """A person of the training set who is in a test set.

    Attributes:
        label: the class.
        by: BY_IMAGE where an image is in both, else BY_FEATURES, else BY_NAME.
        score: the greatest cosine of a test image with the person's center; 1 by image, nan by
            name alone.
        images: how many test images show the person by features or bytes.
        image: one of them, the most like; None by name alone.
        name: of the person in the test set, "" where it has none.
    """

    label: int
    by: str
    score: float
    images: int
    image: int | None
    name: str


def open_test_sets(value: str) -> list[ForeignSet]:
    """Open what --against names: PATH,PATH,… or ijbb:DIR, ijbc:DIR, rfw:DIR, tinyface:DIR.

    A path is a verification set (.bin, a table, a list, a folder of .bin), or labeled images as
    convert takes them. Raises UserError naming what cannot be opened.
    """
    found: list[ForeignSet] = []
    for part in split_parts(value):
        protocol, colon, rest = part.partition(":")
        if colon and protocol in NAMES:
            found.append(_ijb(protocol, Path(rest)))
        elif colon and protocol == RFW:
            found += map(_of_pairs, open_rfw(Path(rest)).values())
        elif colon and protocol == TINYFACE:
            tree = read_tinyface(Path(rest))
            found += map(_of_files, (tree.probe, tree.match, tree.distractor))
        elif _is_pairs(Path(part)):
            found += map(_of_pairs, open_pair_sets([Path(part)]).values())
        else:
            found.append(_labeled(part))
    names = [each.images.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--against: two sets called {twice}; names must differ")
    return found


def _is_pairs(path: Path) -> bool:
    if path.is_dir():
        return any(next(path.glob(pattern), None) for pattern in PAIR_FILES)
    return path.is_file() and path.suffix not in _SOURCES


def _of_pairs(opened: OpenedPairs) -> ForeignSet:
    if isinstance(opened.images, ImageFiles):
        return _of_files(opened.images)
    encoded = with_images(opened).images
    return ForeignSet(opened.images, encoded.__getitem__, None)


def _of_files(files: ImageFiles) -> ForeignSet:
    people = [name.rpartition("/")[0] for name in files.names]
    return ForeignSet(
        files,
        lambda i: read_image_file(files.root / files.names[i]),
        people if all(people) else None,
    )


def _ijb(name: str, root: Path) -> ForeignSet:
    landmarks = root / "meta" / f"{name}_name_5pts_score.txt"
    listed = read_images(root / "meta" / f"{name}_face_tid_mid.txt", landmarks)
    crops = IjbCrops(name, root, landmarks, listed)
    return ForeignSet(crops, lambda i: read_image_file(root / CROPS / listed.names[i]), None)


def _labeled(path: str) -> ForeignSet:
    source = open_source(path)
    people = None
    if source.class_names is not None:
        people = [source.class_names[source[i].label] for i in range(len(source))]
    name = Path(path).resolve().name.partition(".")[0]
    return ForeignSet(ImagesToClean(name, source), lambda i: source[i].image, people)


def hashes_of(images: Iterable[bytes]) -> np.ndarray:
    """Return the hashes of encoded images, uint8 [N, HASH_BYTES]."""
    found = b"".join(map(content_hash, images))
    return np.frombuffer(found, np.uint8).reshape(-1, HASH_BYTES)


def same_images(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each of `others` [M, H] a row of `hashes` [N, H] that is equal, int64; else -1.

    >>> same_images(np.array([[1, 2], [3, 4]], np.uint8), np.array([[3, 4], [5, 6]], np.uint8))
    array([ 1, -1])
    """
    first = exact_originals(np.concatenate([hashes, others]))[len(hashes) :]
    found: np.ndarray = np.where(first < len(hashes), first, -1)
    return found


def alike_people(
    features: np.ndarray, people: People, scale: Scale, sure: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the person of the training set most like each test image, int64 [M]; -1 for nobody.

    The second array is the cosine with the person's center, float32. features: [M, D] of the test
    images. A person is one whose images the test image is as like as one person's images are, and
    whose center is `sure` deviations nearer than two people's are.
    """
    present = np.flatnonzero(people.sizes)
    lengths = np.linalg.norm(people.centers[present], axis=1)
    units = people.centers[present] / np.maximum(lengths, 1e-12)[:, None]
    bound = scale.different_mean + sure * scale.different_std
    found = pairs_above(normalize(features).astype(np.float32), units, bound=bound)
    nobody = np.full(len(features), -1)
    row, score = best_others(found, nobody, len(features))
    alike = (row >= 0) & (score * lengths[row] >= scale.same_mean - 2 * scale.same_std)
    return np.where(alike, present[row], -1), score


def name_key(name: str) -> str:
    """Return the words of a person's name, in one spelling; "" where it names nobody.

    >>> name_key("Zoë_Müller"), name_key("zoe muller"), name_key("0000123"), name_key("m.0107_f")
    ('zoe muller', 'zoe muller', '', '')
    """
    plain = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    words = [word for word in re.split(r"[\W\d_]+", letters) if len(word) > 1]
    return " ".join(words) if len(words) >= _MIN_WORDS else ""


def shared_people(
    same: np.ndarray,
    alike: tuple[np.ndarray, np.ndarray],
    train_names: Sequence[str] | None,
    test_names: Sequence[str] | None,
) -> list[Shared]:
    """Return who is in both sets, the surest first.

    Args:
        same: int [M], for each test image the person one of whose images it is, -1 for none.
        alike: of alike_people.
        train_names: of the classes, or None.
        test_names: of the person in each test image, or None.
    """
    person = np.where(same >= 0, same, alike[0])
    score = np.where(same >= 0, 1.0, alike[1])
    found: dict[int, Shared] = {}
    for image in np.flatnonzero(person >= 0)[np.argsort(-score[person >= 0], kind="stable")]:
        label = int(person[image])
        name = "" if test_names is None else test_names[image]
        if label in found:
            before = found[label]
            found[label] = Shared(
                label, before.by, before.score, before.images + 1, before.image, before.name
            )
        else:
            by = BY_IMAGE if same[image] >= 0 else BY_FEATURES
            found[label] = Shared(label, by, float(score[image]), 1, int(image), name)
    if train_names is not None and test_names is not None:
        for label, name in _by_name(train_names, test_names).items():
            found.setdefault(label, Shared(label, BY_NAME, float("nan"), 0, None, name))
    return list(found.values())


def _by_name(train_names: Sequence[str], test_names: Sequence[str]) -> Mapping[int, str]:
    keys = {name_key(name): name for name in set(test_names)}
    keys.pop("", None)
    labels = {label: keys.get(name_key(name), "") for label, name in enumerate(train_names)}
    return {label: name for label, name in labels.items() if name}
