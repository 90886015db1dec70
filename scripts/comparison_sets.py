"""The faces of compare_losses.py: people to train on, and pairs of people seen and unseen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.conversion.people import ChosenPeople, labels_of
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.faces.orl import PAIRS_FILE, make_demo_data
from uniface_jax.data.formats.bin_pairs import PairSet, read_pairs
from uniface_jax.data.formats.pair_lists import read_pair_lines
from uniface_jax.data.formats.tfrecord_info import INFO_FILE
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.bootstrap import joined_people
from uniface_jax.files.text_lines import numbered_lines
from uniface_jax.inspection.comparison import Faces
from uniface_jax.inspection.resampling import Pairs

MAX_SEEN = 2000  # images, of which all pairs are taken
MAX_IMAGES = 5  # of a person, of which all pairs are taken
LFW_TAR = "lfw_112.tar"


@dataclass(frozen=True, eq=False)
class ComparedSet:
    """A training set of people, pairs of them, and pairs of others.

    train: the folder of a data set. about: one line for tables.
    """

    name: str
    train: Path
    seen: Faces
    unseen: Faces
    about: str


def demo_set(folder: Path) -> ComparedSet:
    """The ORL faces: 30 people of ten images to train on, all pairs of them and of ten others."""
    make_demo_data(folder)
    train = folder / "train"
    return _every_pair("demo", train, read_pairs(folder / PAIRS_FILE))


def source_set(name: str, train: Path, pairs_file: Path) -> ComparedSet:
    """Any data set of few images, and a .bin of pairs of other people."""
    return _every_pair(name, train, read_pairs(pairs_file))


def _every_pair(name: str, train: Path, listed: PairSet) -> ComparedSet:
    """A set whose images seen make all their pairs, and whose unseen people are those of a list."""
    source = open_source(train)
    if len(source) > MAX_SEEN:
        raise UserError(
            f"{source.name}: {len(source)} images; expected at most {MAX_SEEN}, of which all pairs "
            "are taken"
        )
    items = [source[i] for i in range(len(source))]
    people = np.array([item.label for item in items])
    first, second = np.triu_indices(len(people), 1)
    seen = _pairs(first, second, people[first] == people[second], people)
    of_list = joined_people(
        listed.first[listed.same], listed.second[listed.same], len(listed.images)
    )
    unseen = _pairs(listed.first, listed.second, listed.same, of_list, shuffled=False)
    about = (
        f"{len(people)} images of {source.num_classes} people; "
        f"{len(of_list)} images of {of_list.max() + 1} others"
    )
    return ComparedSet(
        name,
        train,
        Faces([item.image for item in items], seen, np.arange(0)),
        Faces(listed.images, unseen, _first_of_each(of_list)),
        about,
    )


def lfw_sets(lfw: Path, folder: Path, wanted: Iterable[str]) -> list[ComparedSet]:
    """LFW's development view: all of peopleDevTrain, or those with two images and more.

    Args:
        lfw: the folder of lfw_112.tar and of the lists.
        folder: gets the training sets.
        wanted: "lfw-all" or "lfw-two", or both.
    """
    source = open_source(lfw / LFW_TAR)
    labels = labels_of(source)
    number = {name: label for label, name in enumerate(source.class_names or ())}
    rows = {_stem(source.item_name(i)): i for i in range(len(source))}
    train, test = (_people(lfw / f"peopleDev{part}.txt", number) for part in ("Train", "Test"))
    unseen = _lfw_faces(lfw / "pairsDevTest.txt", source, labels, rows, test)
    counts = np.bincount(labels, minlength=source.num_classes)
    people = {"lfw-all": train, "lfw-two": train[counts[train] >= 2]}
    sets = []
    for name in wanted:
        chosen = np.sort(people[name])
        part = ChosenPeople(source, labels, chosen.tolist())
        if not (folder / name / INFO_FILE).is_file():
            write_dataset(part, folder / name, name=name.replace("-", "_"))
        seen = _lfw_faces(lfw / "pairsDevTrain.txt", source, labels, rows, chosen)
        about = (
            f"{len(part)} images of {len(chosen)} people; "
            f"{len(unseen.images)} images of {unseen.count} others"
        )
        sets.append(ComparedSet(name, folder / name, seen, unseen, about))
    return sets


def _people(file: Path, number: Mapping[str, int]) -> np.ndarray:
    """Return the classes of the people that one of LFW's lists names, behind their number."""
    names = [line.split()[0] for _, line in list(numbered_lines(file))[1:] if line.strip()]
    missing = [name for name in names if name not in number]
    if missing:
        raise UserError(f"{file}: {missing[0]}: no images of this person in {LFW_TAR}")
    return np.array([number[name] for name in names])


def _lfw_faces(
    file: Path, source: Source, labels: np.ndarray, rows: Mapping[str, int], people: np.ndarray
) -> Faces:
    """Return the listed pairs of these people, and of each at most MAX_IMAGES images besides."""
    listed = read_pair_lines(file)
    known = set(people.tolist())
    pairs, same = [], []
    for (one, other), kind, line in zip(listed.sides, listed.same, listed.lines, strict=True):
        found = [next((rows[name] for name in side if name in rows), None) for side in (one, other)]
        if None in found:
            raise UserError(f"{file}: line {line}: no such image in {LFW_TAR}")
        if all(int(labels[row]) in known for row in found):
            pairs.append(found)
            same.append(kind)
    of_people = np.flatnonzero(np.isin(labels, people))
    crossed = of_people[_first_of_each(labels[of_people])]
    used = np.unique(np.concatenate([np.ravel(pairs), crossed]))
    place = {int(row): at for at, row in enumerate(used)}
    first, second = (np.array([place[pair[side]] for pair in pairs]) for side in (0, 1))
    numbered = np.unique(labels[used], return_inverse=True)[1]
    return Faces(
        [source[int(row)].image for row in used],
        _pairs(first, second, np.array(same), numbered),
        np.array([place[int(row)] for row in crossed]),
    )


def _pairs(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, people: np.ndarray,
    shuffled: bool = True,
) -> Pairs:  # fmt: skip
    """Return pairs, in an order that gives every tenth its share of both kinds."""
    if not shuffled:
        return Pairs(first, second, same, people)
    place = np.empty(len(same))
    for kind in (same, ~same):
        place[kind] = np.arange(kind.sum()) / max(1, kind.sum())
    order = np.argsort(place, kind="stable")
    return Pairs(first[order], second[order], same[order], people)


def _first_of_each(people: np.ndarray) -> np.ndarray:
    """Return the rows of the first MAX_IMAGES images of each of people int [N], rising."""
    order = np.argsort(people, kind="stable")
    starts = np.searchsorted(people[order], people[order])
    return np.sort(order[np.arange(len(people)) - starts < MAX_IMAGES])


def _stem(name: str) -> str:
    """Return PERSON/IMAGE of an item's name, ARCHIVE/PERSON/IMAGE.jpg."""
    return name.partition("/")[2].rpartition(".")[0]
