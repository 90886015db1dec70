"""Prints the table of recipes in configs/, with the paper's numbers to be compared with.

python scripts/recipes.py [--json=FILE]
"""

import argparse
import importlib.util
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from uniface_jax.files.atomic import write_bytes

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_SECTIONS = ("Data", "Hardware", "Paper")


def sections(docstring: str) -> dict[str, str]:
    """{"title": first line, "data": …, "hardware": …, "paper": …} of a recipe's docstring.

    A section starts with its name and a colon, or its name and a remark in brackets.
    """
    title, _, rest = docstring.strip().partition("\n")
    parts = re.split(rf"(?m)^({'|'.join(_SECTIONS)})\b", rest)
    found = {"title": title}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found[name.lower()] = " ".join(text.partition(": ")[2].split())
    return found


def load(path: Path) -> Any:
    """A recipe in configs/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe(path: Path) -> dict[str, Any]:
    """One row of the table: what a recipe in configs/ trains, and what the paper reports for it."""
    module = load(path)
    config = module.get_config()
    loss = {key: value for key, value in config.loss.items() if value is not None}
    length = f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs"
    warmup = config.optim.warmup_epochs
    return {
        "recipe": path.stem,
        "network": config.model.name,
        "loss": loss.pop("name"),
        "hyperparameters": loss,
        "sampling_rate": config.head.sampling_rate,
        "batch_size": config.batch_size,
        "lr": config.optim.lr,
        "schedule": config.optim.schedule + (f", {warmup:g} epochs warm-up" if warmup else ""),
        "length": length,
        **sections(module.__doc__ or ""),
    }


def table(recipes: list[dict[str, Any]]) -> str:
    """Aligned columns, and below them what the docstrings quote from the paper."""
    heads = ("recipe", "network", "loss", "r", "batch", "lr", "schedule", "length")
    rows = [heads]
    for row in recipes:
        bound = " ".join(f"{key}={value:g}" for key, value in row["hyperparameters"].items())
        rows.append(
            (
                row["recipe"], row["network"], f"{row['loss']} {bound}".strip(),
                f"{row['sampling_rate']:g}", str(row["batch_size"]), f"{row['lr']:g}",
                row["schedule"], row["length"],
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
    lines.append("\nNumbers of the paper in percent: targets, no results of this project")
    indent = " " * (widths[0] + 2)
    for row in recipes:
        if paper := row.get("paper"):
            name = row["recipe"].ljust(widths[0] + 2)
            lines += textwrap.wrap(paper, 110, initial_indent=name, subsequent_indent=indent)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    recipes = [recipe(path) for path in sorted(CONFIGS.glob("*.py"))]
    print(table(recipes))
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(recipes, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
