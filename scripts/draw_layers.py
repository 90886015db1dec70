"""Draws the layers of the package as its import contract states them, for the docs.

python scripts/draw_layers.py [--output=docs/concepts/layers.svg]

The picture is made of [tool.importlinter] in pyproject.toml alone, which `make lint` enforces: so
it cannot show what is not so. A test compares the kept file with a fresh one.
"""

import argparse
import tomllib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from uniface_jax.files.atomic import write_bytes

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "concepts" / "layers.svg"

Layer = Sequence[str]

# Pixels.
WIDTH, MARGIN, GAP = 460, 12, 8
BOX_HEIGHT, LAYER_GAP, TITLE_HEIGHT = 34, 10, 34
BOXES_A_ROW = 3

STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:15px;fill:#1a237e}"
    ".title{font-size:15px;font-weight:600;fill:#333}"
    ".layer{fill:#f2f4fb}.box{fill:#fff;stroke:#5c6bc0}"
)


def layers_of(pyproject: Path, container: str) -> list[Layer]:
    """Return the layers of the contract for `container`, upper ones first, each a list of rooms.

    Raises KeyError where pyproject.toml has no contract of layers for it.
    """
    contracts = tomllib.loads(pyproject.read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers" and contract["containers"] == [container]:
            return [
                [room.strip("() ") for room in layer.replace(":", "|").split("|")]
                for layer in contract["layers"]
            ]
    raise KeyError(f"{pyproject}: no contract of layers for {container}")


def draw(parts: Sequence[tuple[str, Sequence[Layer]]]) -> str:
    """Return an SVG of (title, layers) one below the other; its text names every room."""
    shapes: list[str] = []
    y = 0
    for title, layers in parts:
        y += TITLE_HEIGHT
        shapes.append(f'<text class="title" x="{MARGIN}" y="{y - 10}">{escape(title)}</text>')
        for layer in layers:
            height = _draw_layer(shapes, layer, y)
            y += height + LAYER_GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
            f'width="{WIDTH}" height="{y}" role="img">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _draw_layer(shapes: list[str], layer: Layer, top: int) -> int:
    """Append the shapes of one layer; return its height."""
    rows = [layer[i : i + BOXES_A_ROW] for i in range(0, len(layer), BOXES_A_ROW)]
    height = len(rows) * (BOX_HEIGHT + GAP) + GAP
    inner = WIDTH - 2 * MARGIN
    shapes.append(
        f'<rect class="layer" x="{MARGIN}" y="{top}" width="{inner}" height="{height}" rx="6"/>'
    )
    for row_number, row in enumerate(rows):
        width = (inner - GAP * (len(row) + 1)) / len(row)
        y = top + GAP + row_number * (BOX_HEIGHT + GAP)
        for column, room in enumerate(row):
            x = MARGIN + GAP + column * (width + GAP)
            shapes.append(
                f'<rect class="box" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                f'height="{BOX_HEIGHT}" rx="4"/>'
            )
            shapes.append(
                f'<text x="{x + width / 2:.1f}" y="{y + 22}" text-anchor="middle">'
                f"{escape(room)}</text>"
            )
    return height


def picture(pyproject: Path) -> str:
    """Return the SVG of the package's layers and of those within its room data."""
    return draw(
        [
            ("uniface_jax: imports run down", layers_of(pyproject, "uniface_jax")),
            ("within data: from batches to files", layers_of(pyproject, "uniface_jax.data")),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PICTURE, help="the SVG file")
    arguments = parser.parse_args()
    write_bytes(arguments.output, picture(ROOT / "pyproject.toml").encode())
    print(arguments.output)


if __name__ == "__main__":
    main()
