"""Prints what tests cover of lines and branches, next to the figure that is kept.

    python -m coverage json -o report.json && python scripts/coverage_figure.py report.json

The status is 1 where a share that is kept fell by more than ROUNDING: of a folder or file at the
package's root, or of the whole, "in all". --keep writes all of them anew.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

KEPT = Path(__file__).parents[1] / "tests" / "coverage.json"
ROUNDING = 0.1  # percent: what runs by chance, as a wait that ends early, changes less
KINDS = {"lines": "statements", "branches": "branches"}  # of coverage.py's JSON


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the percent covered of "lines" and "branches", to two digits: 100 where none is."""
    return {
        kind: round(100 * counts[f"covered_{kind}"] / total, 2) if total else 100.0
        for kind, total in ((kind, counts[f"num_{name}"]) for kind, name in KINDS.items())
    }


def by_room(files: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return `shares` of each folder and file at the package's root, by its name."""
    rooms: dict[str, Counter[str]] = {}
    for path, file in files.items():
        rooms.setdefault("/".join(PurePath(path).parts[:2]), Counter()).update(file["summary"])
    return {room: shares(counts) for room, counts in sorted(rooms.items())}


def fallen(
    found: Mapping[str, Mapping[str, float]], kept: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return a line for each share that is below the one kept; a room that is gone has none."""
    return [
        f"{room}: {found[room][kind]:.2f} % of {kind} are run by tests, kept were {share:.2f} %"
        for room, shares_kept in kept.items()
        for kind, share in shares_kept.items()
        if room in found and found[room][kind] < share - ROUNDING
    ]


def main(report: Path, keep: bool) -> int:
    told = json.loads(report.read_text())
    found = {**by_room(told["files"]), "in all": shares(told["totals"])}
    for room, part in found.items():
        print(f"{part['lines']:7.2f} % of lines {part['branches']:7.2f} % of branches  {room}")
    if keep:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
    worse = fallen(found, json.loads(KEPT.read_text()))
    print("\n".join(worse), file=sys.stderr, end="\n" if worse else "")
    return bool(worse)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="what `coverage json` wrote")
    parser.add_argument("--keep", action="store_true", help=f"write tests/{KEPT.name} anew")
    given = parser.parse_args()
    sys.exit(main(given.report, given.keep))
