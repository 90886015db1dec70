"""Images and template pairs of IJB-B and IJB-C; errors name file and line.

NAME is ijbb or ijbc; all fields are separated by blanks.
meta/NAME_face_tid_mid.txt: image, template, medium. meta/NAME_name_5pts_score.txt: image, five
landmarks x y, detector's score; line by line the same images. meta/NAME_template_pair_label.txt:
template, template, 0 or 1 (15.7 million lines for IJB-C).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.text_lines import blocks, integers, parsed, text_lines

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
    """Read NAME_face_tid_mid.txt and NAME_name_5pts_score.txt together.

    Raises UserError naming file and line for a line with other fields, an image name that is a
    path, a number that is not finite, files of different length, or another image in a line.
    """
    names: list[str] = []
    ids = [np.empty((0, 2), np.int32)]
    for start, block in blocks(template_file):
        ids.append(parsed(template_file, start, block, _image_ids, _IMAGE_LINE))
        names += _first_fields(block)
    crops = [np.empty((0, 11), np.float32)]
    for start, block in blocks(landmark_file):
        crops.append(parsed(landmark_file, start, block, _crop_numbers, _LANDMARK_LINE))
        found = _first_fields(block)
        expected = names[start - 1 : start - 1 + len(found)]
        if found[: len(expected)] != expected:
            i = next(
                i for i, pair in enumerate(zip(found, expected, strict=False)) if len({*pair}) > 1
            )
            raise UserError(
                f"{landmark_file}: line {start + i}: image {found[i]}, but line {start + i} of "
                f"{template_file} is of {expected[i]}; expected the same images in one order"
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
    """Read NAME_template_pair_label.txt, with a progress bar on a terminal.

    Raises UserError naming file and line for a line that is not two template ids and 0 or 1.
    """
    rows = [parsed(file, start, block, _pair_numbers, _PAIR_LINE) for start, block in blocks(file)]
    if not rows:
        raise UserError(f"{file}: no pairs; expected lines of {_PAIR_LINE}")
    first, second = (np.concatenate([block[:, i] for block in rows]) for i in (0, 1))
    return IjbPairs(first, second, np.concatenate([block[:, 2] == 1 for block in rows]))


def _first_fields(block: bytes) -> list[str]:
    return [line.split(None, 1)[0] for line in text_lines(block)]


def _image_ids(block: bytes) -> np.ndarray:
    """Parse template and medium, int32 [n, 2]."""
    rows = [line.split() for line in text_lines(block)]
    if any(len(row) != 3 or not _is_plain(row[0]) for row in rows):
        raise ValueError
    ids = np.array([(int(row[1]), int(row[2])) for row in rows], np.int32)
    if np.min(ids) < 0:
        raise ValueError
    return ids


def _crop_numbers(block: bytes) -> np.ndarray:
    """Parse landmarks and score, float32 [n, 11]."""
    numbers = np.array([line.split()[1:] for line in text_lines(block)], np.float32)
    if numbers.shape[1:] != (11,) or not np.isfinite(numbers).all():
        raise ValueError
    return numbers


def _pair_numbers(block: bytes) -> np.ndarray:
    """Parse both templates and the label, int32 [n, 3]."""
    rows = integers(block, 3)
    if np.max(rows[:, 2]) > 1:
        raise ValueError
    return rows


def _is_plain(name: str) -> bool:
    """Return True for a name within its folder: a file does not choose what else is opened."""
    return name not in (".", "..") and "/" not in name and "\\" not in name
