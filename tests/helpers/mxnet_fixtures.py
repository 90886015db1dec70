"""What a folder of the form of tests/fixtures holds, by its own expected.json; any such folder."""

import json
from pathlib import Path
from typing import Any


def expected(folder: Path) -> list[dict[str, Any]]:
    """Return index, label, bytes and sha256 of each image of a layout, in its order."""
    return json.loads((folder / "expected.json").read_text())


def labels(folder: Path) -> list[int]:
    """Return the labels of a layout's images."""
    return [int(entry["label"]) for entry in expected(folder)]


def num_classes(folder: Path) -> int:
    """Return the number of a layout's classes."""
    return len(set(labels(folder)))
