"""RFW as it is given out: pairs of four races, as .bin files or as the tree with its landmarks.

The tree holds data/RACE/PERSON/PERSON_0001.jpg and txts/RACE/RACE_pairs.txt, lines of LFW's form
without a heading. txts/RACE/RACE_lmk.txt, where it is there, has a line an image: its path, a
label, and five points x y in its pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.faces.alignment import align, aligned_landmarks
from uniface_jax.data.formats import images as image_files
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.landmarks import POINTS
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import Digest, ImageFiles
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs, open_pair_set, open_short_list
from uniface_jax.files.text_lines import numbered_lines

RACES = ("African", "Asian", "Caucasian", "Indian")
_TREES = ("", "test", "images/test")  # below what a user names
_LINE = "the path of an image, a label and five points x y, all finite, between tabs or blanks"


def open_rfw(root: Path) -> dict[str, OpenedPairs]:
    """Open the pairs of all four races in a folder, by race, each fit for ten folds.

    A race of fewer than ten pairs has a fold for each pair.

    Raises:
        UserError: the folder is neither form, a race is missing or has no pairs, or what
            open_pair_set raises; the message names the file.
    """
    files = {race: root / f"{race}_test.bin" for race in RACES}
    there = [race for race, file in files.items() if file.is_file()]
    tree = next((root / below for below in _TREES if (root / below / "txts").is_dir()), None)
    if there and tree is None:
        missing = [files[race] for race in RACES if race not in there]
        if missing:
            raise UserError(f"{missing[0]}: no such file; expected a .bin of each of all races")
        return {race: open_pair_set(race, file, [root]) for race, file in files.items()}
    if tree is None:
        raise UserError(
            f"{root}: neither {RACES[0]}_test.bin nor a folder txts in it, in test/ or in "
            "images/test/; expected RFW's four .bin files or its tree"
        )
    return {race: _open_race(tree, race) for race in RACES}


def _open_race(tree: Path, race: str) -> OpenedPairs:
    file = tree / "txts" / race / f"{race}_pairs.txt"
    opened = open_short_list(race, file, [tree / "data" / race])
    images = opened.images
    assert isinstance(images, ImageFiles)
    table = file.with_name(f"{race}_lmk.txt")
    if not table.is_file():
        return opened
    return replace(opened, images=RacePhotographs(images, table, _landmarks(table, images)))


class RacePhotographs(ImageFiles):
    """Photographs moved to the template by their landmarks, float32 [N, 5, 2] in pixels.

    Those of 112x112 are taken as they are: somebody has aligned them already.
    """

    def __init__(self, images: ImageFiles, table: Path, points: np.ndarray) -> None:
        super().__init__(images.name, images.root, images.names, whole=False)
        self._file, self._points = table, points

    @override
    def pixels(self, index: int) -> np.ndarray:
        label = self.label(index)
        pixels = image_files.decode(read_image_file(Path(label)), label)
        if pixels.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
            return pixels
        return self._of_points(index, lambda points: align(pixels, points))

    @override
    def landmarks(self, index: int) -> np.ndarray:
        return self._of_points(index, aligned_landmarks)

    def _of_points(self, index: int, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        try:
            return of(self._points[index])
        except ValueError as e:
            raise UserError(f"{self._file}: {self.names[index]}: {e}") from e

    @override
    def digest(self, files: Digest) -> str:
        tree = self.root.parent.parent
        names = [f"data/{self.root.name}/{name}" for name in self.names]
        return files(tree, [str(self._file.relative_to(tree)), *names])


def _landmarks(table: Path, images: ImageFiles) -> np.ndarray:
    """Return the points of all images, float32 [N, 5, 2], by the last two parts of their paths."""
    rows = {"/".join(Path(name).parts[-2:]): row for row, name in enumerate(images.names)}
    found: dict[int, int] = {}
    points = np.empty((len(images), POINTS, 2), np.float32)
    for number, line in numbered_lines(table):
        if not line.strip():
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        path, numbers = cells[0].replace("\\", "/"), cells[-2 * POINTS :]
        try:
            values = np.array(numbers, np.float32).reshape(POINTS, 2)
            if len(cells) != 2 * POINTS + 2 or not np.isfinite(values).all():
                raise ValueError
        except ValueError as e:
            raise UserError(f"{table}: line {number}: {line[:80]!r}; expected {_LINE}") from e
        row = rows.get("/".join(path.split("/")[-2:]))
        if row is None:
            continue  # an image that is in no pair
        if row in found:
            raise UserError(f"{table}: line {number}: {path[-80:]} again, after line {found[row]}")
        found[row], points[row] = number, values
    missing = next((row for row in range(len(images)) if row not in found), None)
    if missing is not None:
        raise UserError(f"{table}: no line for {images.names[missing]}, which is in a pair")
    return points
