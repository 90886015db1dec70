"""Verification sets that a user names: .bin files, and folders of them."""

from collections.abc import Sequence
from pathlib import Path

from uniface_jax.data.formats.bin_pairs import PairSet, read_pairs
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import check_pairs


def find_pair_files(data: Sequence[Path]) -> dict[str, Path]:
    """Find the .bin files in `data`, by name without suffix, in the order given, folders sorted.

    Raises UserError naming the path that does not exist, the folder without a .bin, and the second
    file of one name.
    """
    files: dict[str, Path] = {}
    for path in data:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; expected .bin pairs")
        found = sorted(path.glob("*.bin")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no .bin file in this folder")
        for file in found:
            if file.stem in files:
                raise UserError(
                    f"{file}: a second set called {file.stem}, beside {files[file.stem]}; "
                    "names must differ"
                )
            files[file.stem] = file
    return files


def read_pair_sets(data: Sequence[Path]) -> dict[str, PairSet]:
    """Read the sets of find_pair_files, by name, fit for ten folds; images stay encoded.

    Raises UserError naming the file that cannot be read or evaluated.
    """
    sets = {}
    for name, file in find_pair_files(data).items():
        sets[name] = read_pairs(file)
        try:
            check_pairs(sets[name].same)
        except UserError as e:
            raise UserError(f"{file}: {e}") from e
    return sets
