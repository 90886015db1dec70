"""Verification sets of the field by their own lists: where list and images lie in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from uniface_jax.data.formats.pair_lists import likely_roots
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs, open_pair_set

# Names of the list as each set is given out; any other single list of pairs is taken where none is.
LISTS: Mapping[str, Sequence[str]] = {
    "lfw": ("pairs.txt", "lfw_pairs.txt"),
    "xqlfw": ("xqlfw_pairs.txt",),
    "calfw": ("pairs_CALFW.txt", "calfw_pairs.txt"),
    "cplfw": ("pairs_CPLFW.txt", "cplfw_pairs.txt"),
    "agedb": ("agedb_30_pairs.txt", "agedb_pairs.txt"),
}
_ANY_LIST = ("*pair*.txt", "*pair*.csv")


def find_list(name: str, path: Path) -> Path:
    """Return the list of pairs of the set `name`, a key of LISTS: `path`, or one in that folder.

    Raises UserError where there is no such path, no list in it, or several and none by a known
    name.
    """
    if not path.exists():
        raise UserError(f"--data: {name}={path}: no such file or folder")
    if not path.is_dir():
        return path
    for known in LISTS[name]:
        if (path / known).is_file():
            return path / known
    found = sorted({file for pattern in _ANY_LIST for file in path.glob(pattern)})
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:4]) or "none"
        raise UserError(
            f"--data: {name}={path}: {len(found)} lists of pairs ({names}); expected "
            f"{' or '.join(LISTS[name])}, or the list itself"
        )
    return found[0]


def open_known_list(name: str, path: Path, root: Path | None = None) -> OpenedPairs:
    """Open the set `name`, a key of LISTS, by find_list; images are in `root`, or near the list.

    Raises UserError as find_list and open_pair_set do, and where LFW's first line says another
    number of pairs than the list has.
    """
    file = find_list(name, path)
    roots = likely_roots(file)
    opened = open_pair_set(name, file, roots if root is None else [root, *roots])
    pairs, counts = opened.pairs, opened.counts
    if len(counts) == 2 and counts[0] > 0 and len(pairs) != 2 * counts[0] * counts[1]:
        raise UserError(
            f"{file}: line 1: {counts[0]} sets of {counts[1]} + {counts[1]} pairs, but "
            f"{len(pairs)} pairs follow; expected {2 * counts[0] * counts[1]}"
        )
    return opened
