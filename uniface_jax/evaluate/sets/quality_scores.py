"""Scores of the quality of images: from a table, or the detector's, as align has kept them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from uniface_jax.data.faces.align_folders import REPORT_FILE
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import ImageFiles
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.text_lines import numbered_lines

_LINE = "image,score: an image's path, or its number in a .bin, and a finite number"


def table_scores(file: Path, opened: OpenedPairs) -> np.ndarray:
    """Return the score of each image of a set, float64 [N], from lines image,score.

    An image is named by the end of its path, in whole parts, or by its number in a .bin, which
    counts two a pair. A first line whose score is no number is a heading. Raises UserError naming
    the line that is none or names an image again, and an image without a line.
    """
    scores: dict[str, float] = {}
    for number, line in numbered_lines(file):
        name, _, text = (cell.strip().strip('"') for cell in line.rpartition(","))
        if not line.strip():
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            if number == 1 and name and math.isnan(value) and text.lower() != "nan":
                continue
            raise UserError(f"{file}: line {number}: {line[:80]!r}; expected {_LINE}")
        if name in scores:
            raise UserError(f"{file}: line {number}: {name[-80:]} again")
        scores[name] = value
    return _of_images(file, scores, opened)


def detector_scores(opened: OpenedPairs) -> np.ndarray:
    """Return the detector's score of each image, float64 [N], as align has left them beside these.

    Raises UserError where there is no alignment.json beside the images, or no score of one in it.
    """
    images = opened.images
    if not isinstance(images, ImageFiles):
        raise UserError(
            f"{opened.file}: the detector's scores stand in {REPORT_FILE} of align, beside image "
            "files; give score=FILE.csv for images in one file"
        )
    file = images.root / REPORT_FILE
    faces = read_json(file, "python -m uniface_jax.align writes it").get("faces")
    scores = {
        face["file"]: float(face["score"])
        for face in (faces.values() if isinstance(faces, dict) else ())
        if isinstance(face, dict)
        and isinstance(face.get("file"), str)
        and isinstance(face.get("score"), int | float)
        and math.isfinite(face["score"])
    }
    return _of_images(file, scores, opened)


def _of_images(file: Path, scores: Mapping[str, float], opened: OpenedPairs) -> np.ndarray:
    pairs = opened.pairs
    found = np.empty(len(opened.images))
    for row in range(len(found)):
        if pairs.names is not None:
            parts = (opened.file.parent / pairs.names[row]).as_posix().split("/")
            keys = ["/".join(parts[k:]) for k in range(len(parts))]
        else:
            keys = [str(row if pairs.numbers is None else int(pairs.numbers[row]))]
        key = next((key for key in keys if key in scores), None)
        if key is None:
            raise UserError(f"{file}: no score of {opened.images.label(row)}")
        found[row] = scores[key]
    return found
