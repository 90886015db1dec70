"""The text files that describe IJB-B and IJB-C, read block by block; errors name file and line.

NAME is ijbb or ijbc; all fields are separated by blanks.
meta/NAME_face_tid_mid.txt: image, template, medium. meta/NAME_name_5pts_score.txt: image, five
landmarks x y, detector's score; line by line the same images. meta/NAME_template_pair_label.txt:
template, template, 0 or 1 (15.7 million lines for IJB-C).
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from uniface_jax.errors import UserError

_BLOCK_BYTES = 1 << 24
_MAX_LINE = 4096
_IMAGE_LINE = "a file name, a template and a medium"
_LANDMARK_LINE = "a file name, five landmarks x y and a score, all finite"
_PAIR_LINE = "two templates and 0 or 1"


@dataclass(frozen=True, eq=False)
class IjbImages:
    """N images: names (in loose_crop/), templates, media: int32 [N]; and how to crop them.

    landmarks: float32 [N, 5, 2], x y in pixels of the loose crop. scores: float32 [N].
    """

    names: list[str]
    templates: np.ndarray
    media: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class IjbPairs:
    """P pairs of template ids: first, second int32 [P]; same: bool [P]. Entry i is line i + 1."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def read_images(template_file: Path, landmark_file: Path) -> IjbImages:
    """Reads NAME_face_tid_mid.txt and NAME_name_5pts_score.txt together.

    Raises UserError naming file and line for a line with other fields, an image name that is a
    path, a number that is not finite, files of different length, or another image in a line.
    """
    names: list[str] = []
    ids = [np.empty((0, 2), np.int32)]
    for start, lines in _blocks(template_file):
        ids.append(_parsed(template_file, start, lines, _image_ids, _IMAGE_LINE))
        names += [line.split(None, 1)[0] for line in lines]
    crops = [np.empty((0, 11), np.float32)]
    for start, lines in _blocks(landmark_file):
        crops.append(_parsed(landmark_file, start, lines, _crop_numbers, _LANDMARK_LINE))
        for number, (line, name) in enumerate(
            zip(lines, names[start - 1 : start - 1 + len(lines)], strict=False), start
        ):
            found = line.split(None, 1)[0]
            if found != name:
                raise UserError(
                    f"{landmark_file}: line {number}: image {found}, but line {number} of "
                    f"{template_file} is of {name}; expected the same images in one order"
                )
    numbers, both = np.concatenate(crops), np.concatenate(ids)
    if len(numbers) != len(names) or not names:
        raise UserError(
            f"{landmark_file}: {len(numbers)} lines, but {template_file} has {len(names)}; "
            "expected as many, and at least one"
        )
    landmarks = numbers[:, :10].reshape(-1, 5, 2)
    return IjbImages(names, both[:, 0].copy(), both[:, 1].copy(), landmarks, numbers[:, 10].copy())


def read_template_pairs(file: Path) -> IjbPairs:
    """Reads NAME_template_pair_label.txt; a progress bar on a terminal.

    Raises UserError naming file and line for a line that is not two template ids and 0 or 1.
    """
    blocks = [
        _parsed(file, start, lines, _pair_numbers, _PAIR_LINE) for start, lines in _blocks(file)
    ]
    if not blocks:
        raise UserError(f"{file}: no pairs; expected lines of {_PAIR_LINE}")
    first, second = (np.concatenate([rows[:, i] for rows in blocks]) for i in (0, 1))
    return IjbPairs(first, second, np.concatenate([rows[:, 2] == 1 for rows in blocks]))


def _blocks(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, lines) of pieces of the file, memory bounded by _BLOCK_BYTES."""
    number = 1
    try:
        with file.open("rb") as opened, _progress(opened, file.name) as bar:
            while block := opened.read(_BLOCK_BYTES):
                if not block.endswith(b"\n"):
                    block += opened.readline(_MAX_LINE)
                lines = block.decode("utf-8", "replace").removesuffix("\n").split("\n")
                if max(map(len, lines)) >= _MAX_LINE:
                    raise UserError(
                        f"{file}: a line of {_MAX_LINE} bytes or more after line {number}"
                    )
                yield number, lines
                number += len(lines)
                bar.update(len(block))
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e


def _progress(opened: BinaryIO, name: str) -> tqdm:
    size = os.fstat(opened.fileno()).st_size
    shown = sys.stderr.isatty()
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=not shown)


def _parsed(
    file: Path, start: int, lines: list[str], parse: Callable[[list[str]], np.ndarray], wanted: str
) -> np.ndarray:
    """parse(lines); where it refuses them, the error names the first line that it refuses alone."""
    try:
        return parse(lines)
    except (ValueError, OverflowError) as refused:
        for number, line in enumerate(lines, start):
            try:
                parse([line])
            except (ValueError, OverflowError):
                raise UserError(
                    f"{file}: line {number}: {line.strip()[:80]!r}; expected {wanted}"
                ) from refused
        raise


def _image_ids(lines: list[str]) -> np.ndarray:
    """Template and medium, int32 [n, 2]."""
    rows = [line.split() for line in lines]
    if any(len(row) != 3 or not _is_plain(row[0]) for row in rows):
        raise ValueError
    ids = np.array([(int(row[1]), int(row[2])) for row in rows], np.int32)
    if np.min(ids) < 0:
        raise ValueError
    return ids


def _crop_numbers(lines: list[str]) -> np.ndarray:
    """Landmarks and score, float32 [n, 11]."""
    numbers = np.array([line.split()[1:] for line in lines], np.float32)
    if numbers.shape[1:] != (11,) or not np.isfinite(numbers).all():
        raise ValueError
    return numbers


def _pair_numbers(lines: list[str]) -> np.ndarray:
    """Both templates and the label, int32 [n, 3]."""
    if not all(map(str.strip, lines)):  # loadtxt would leave empty lines out
        raise ValueError
    rows = np.loadtxt(lines, np.int32, comments=None, ndmin=2)
    if rows.shape[1] != 3 or np.min(rows) < 0 or np.max(rows[:, 2]) > 1:
        raise ValueError
    return rows


def _is_plain(name: str) -> bool:
    """A name within its folder: files from the internet do not choose what else is opened."""
    return name not in (".", "..") and "/" not in name and "\\" not in name
