"""TinyFace as it is given out: Probe, Gallery_Match and Gallery_Distractor, and aligned copies.

The person of a probe or a match is the whole number before the first _ of its file's name. Small
photographs lie in tinyface/Testing_Set, and copies of 112x112 under the same names in a folder
beside it, as AdaFace gives them out (aligned_pad_0.1_pad_high).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.data.sources.folders import visible
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import ImageFiles

PROBE, MATCH, DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
_LISTED = ("tinyface/Testing_Set", "Testing_Set")  # below what a user names
_ALIGNED = "aligned*"
_PERSON = re.compile(r"([0-9]{1,9})_")


@dataclass(frozen=True, eq=False)
class TinyFace:
    """Images of probes, matches and distractors, and the people of probes and matches, int [N]."""

    probe: ImageFiles
    match: ImageFiles
    distractor: ImageFiles
    probe_people: np.ndarray
    match_people: np.ndarray


def read_tinyface(root: Path, aligned: Path | None = None) -> TinyFace:
    """Read TinyFace's folders; the files of Testing_Set, where it is there, say what is in them.

    aligned: the folder of the copies of 112x112; None takes the only folder aligned* in `root`, or
    `root` itself where the three folders lie in it.

    Raises:
        UserError: a folder, a copy or the number in a file's name is missing, or there are several
            folders of copies; the message names it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected TinyFace's")
    listed = next((root / below for below in _LISTED if (root / below).is_dir()), None)
    copies = _copies(root, listed) if aligned is None else aligned
    names = {side: _names((listed or copies) / side) for side in (PROBE, MATCH, DISTRACTOR)}
    if listed not in (None, copies):
        for side in names:
            _check_copies(copies / side, names[side])
    probe, match, distractor = (
        ImageFiles(f"tinyface_{side.lower()}", copies / side, found)
        for side, found in names.items()
    )
    return TinyFace(
        probe,
        match,
        distractor,
        _people(copies / PROBE, names[PROBE]),
        _people(copies / MATCH, names[MATCH]),
    )


def _copies(root: Path, listed: Path | None) -> Path:
    found = sorted(path for path in root.glob(_ALIGNED) if (path / PROBE).is_dir())
    if len(found) > 1:
        raise UserError(
            f"{root}: {len(found)} folders of aligned images ({found[0].name}, {found[1].name}); "
            "say aligned=FOLDER"
        )
    return found[0] if found else listed or root


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected {PROBE}, {MATCH} and {DISTRACTOR} of TinyFace"
        )
    names = [name for name in visible(folder, folders=False) if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(f"{folder}: no images ({', '.join(SUFFIXES)})")
    return names


def _check_copies(folder: Path, names: Sequence[str]) -> None:
    there = set(visible(folder, folders=False)) if folder.is_dir() else set()
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{folder / missing[0]}: no such file ({len(missing)} of {len(names)} are missing); "
            "expected an aligned copy of each image of Testing_Set"
        )


def _people(folder: Path, names: Sequence[str]) -> np.ndarray:
    people = np.empty(len(names), np.int64)
    for row, name in enumerate(names):
        found = _PERSON.match(name)
        if found is None:
            raise UserError(f"{folder / name}: no person's number and _ at the name's beginning")
        people[row] = int(found[1])
    return people
