"""Pairs of one's own as a CSV: two image files and whether they are of one person."""

import csv
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import check_pairs

_HEADING = ["first", "second", "same"]
_EXPECTED = f"{','.join(_HEADING)}: two image files, and 1 for the same person or 0"


def read_pair_list(file: Path, root: Path) -> tuple[PairSet, list[str]]:
    """Read pairs of images that are not read yet, and the images' names relative to `root`.

    A heading first,second,same may be there. Raises UserError naming file and line for any other
    line and for an image that does not exist, and naming the file when its pairs are fewer than the
    ten folds or of one kind.
    """
    number_of: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, skipinitialspace=True, strict=True)
            for fields in reader:
                where = f"{file}: line {reader.line_num}"
                cells = [field.strip() for field in fields]
                if not any(cells) or (not rows and [c.lower() for c in cells] == _HEADING):
                    continue
                if len(cells) != 3 or cells[2] not in ("0", "1"):
                    raise UserError(f"{where}: {','.join(fields)[:80]!r}; expected {_EXPECTED}")
                for name in cells[:2]:
                    if name not in number_of:
                        if not (root / name).is_file():
                            raise UserError(f"{where}: {root / name}: no such image")
                        number_of[name] = len(number_of)
                rows.append((number_of[cells[0]], number_of[cells[1]], int(cells[2])))
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise UserError(f"{file}: no CSV that can be read ({e}); expected {_EXPECTED}") from e
    if not rows:
        raise UserError(f"{file}: no pairs; expected lines of {_EXPECTED}")
    first, second, same = np.array(rows, np.int32).T
    try:
        check_pairs(same == 1)
    except UserError as e:
        raise UserError(f"{file}: {e}") from e
    return PairSet(file.stem, [], first, second, same == 1), list(number_of)
