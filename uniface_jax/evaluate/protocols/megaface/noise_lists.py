"""Published lists of noisy MegaFace images, and which images they leave.

facescrub_noises.txt names a file a line, Adam_Brody_277.png; megaface_noises.txt a path of three
parts a line, 100/1234@N01/1234_0.jpg, in some copies after a number and a tab. Lines that begin
with # are comments.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_regular


def read_noise_list(path: Path | str) -> frozenset[str]:
    """Read the paths that a noise list names, as `_key` writes them.

    Raises UserError where the file cannot be read, is not text, or names nothing in a line.
    """
    try:
        lines = read_regular(Path(path)).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not a readable list of noisy images: {e}") from e
    entries = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name = line.split("\t")[1] if "\t" in line else line
        if not name.strip():
            raise UserError(f"{path}: line {number}: no path after the tab in {line!r}")
        entries.add(_key(name))
    return frozenset(entries)


def clean_rows(names: Sequence[str], noise: frozenset[str]) -> np.ndarray:
    """Return which images are on no noise list, bool [N], by their paths.

    An image is noisy where an entry is the end of its path, in whole parts. Neither the ending
    (.png, .jpg: aligned copies change it) nor spaces and underscores count.

    >>> clean_rows(["a/Adam_Brody_277.jpg", "a/b.jpg"], frozenset(["AdamBrody277"]))
    array([False,  True])
    """
    depth = max((entry.count("/") for entry in noise), default=0) + 1
    clean = np.ones(len(names), bool)
    for row, name in enumerate(names):
        parts = _key(name).split("/")
        ends = ("/".join(parts[-k:]) for k in range(1, min(depth, len(parts)) + 1))
        clean[row] = not any(end in noise for end in ends)
    return clean


def _key(name: str) -> str:
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return str(path).removesuffix(path.suffix).replace(" ", "").replace("_", "")
