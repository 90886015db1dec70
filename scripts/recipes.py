"""Prints the table of the recipes in configs/: command, data, network, hardware, expected result.

    python scripts/recipes.py [--output=configs/README.md] [--json=FILE]

It reads what the recipes say of themselves as data, their VARIANTS.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.cli.recipes import full_names, load, locate
from uniface_jax.config.facts import RecipeFacts, facts_of
from uniface_jax.files.atomic import write_bytes
from uniface_jax.losses import SAMPLE_KEYS

HEADS = (
    "recipe", "method", "data", "network", "batch", "length", "hardware",
    "result to expect, percent",
)  # fmt: skip


def recipes() -> dict[str, tuple[RecipeFacts, ConfigDict]]:
    """Facts and config of every variant of every recipe by its name, as --config takes it."""
    found = {}
    for name in full_names():
        located = locate(name)
        module, config = load(located)
        facts = facts_of(module, located.variant)
        assert facts is not None
        found[name] = facts, config
    return found


def record(facts: RecipeFacts, config: ConfigDict) -> dict[str, Any]:
    """One row of the table, for JSON."""
    own = set(config.loss) if config.loss.with_samples else set(config.loss) - set(SAMPLE_KEYS)
    loss = {key: config.loss[key] for key in config.loss if key in own}
    loss = {key: value for key, value in loss.items() if value is not None}
    return {
        "method": facts.title,
        "loss": loss,
        "sampling_rate": config.head.sampling_rate,
        "data": {
            "title": facts.data.title,
            "images": facts.data.images,
            "identities": facts.data.identities,
            "folder": config.data.train,
        },
        "network": facts.network,
        "batch_size": config.batch_size,
        "schedule": config.optim.schedule,
        "lr": config.optim.lr,
        "length": f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs",
        "hardware": str(facts.hardware),
        "expected": dict(facts.expected.percent),
        "measured": facts.expected.measured,
        "gradient": facts.expected.gradient,
        "source": facts.expected.source,
    }


def row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one recipe."""
    data = found["data"]
    expected = ", ".join(f"{key} {value:.2f}" for key, value in found["expected"].items())
    if expected and not found["measured"]:
        gradient = f", gradient {found['gradient']}" if found["gradient"] else ""
        expected += f" ({found['source']}{gradient})"
    return (
        f"`--config={name}`", found["method"],
        f"{data['title']}: {data['images']:,} images of {data['identities']:,} people",
        found["network"], str(found["batch_size"]), found["length"], found["hardware"],
        expected or "nothing is published",
    )  # fmt: skip


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """configs/README.md."""
    rows = [HEADS, ("---",) * len(HEADS), *(row(*item) for item in records.items())]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return f"""# Recipes

    python -m uniface_jax.train --config=RECIPE --workdir=runs/mine

A recipe is found by its name from any folder; a file of one's own is given by its path,
`--config=mine.py` or `--config=mine.py:variant`. `--print_config` prints all keys with their
values, and `--config.KEY=VALUE` changes one. What each recipe sets is in its file.

Numbers marked "paper" are the paper's, and others say whose: targets, no results of this project.
Hardware is measured where this project ran the recipe, else estimated;
`python -m uniface_jax.plan --config=RECIPE` says what a run needs on other devices. The data sets
but the demo's are for their owners to give; `uniface_jax/data/sources/known_sets.py` says where.

{table}

Printed by `python scripts/recipes.py --output=configs/README.md`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    parser.add_argument("--json", type=Path, help="a file for the table as JSON")
    arguments = parser.parse_args()
    records = {name: record(*found) for name, found in recipes().items()}
    if arguments.output:
        write_bytes(arguments.output, page(records).encode())
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(records, indent=1) + "\n").encode())
    print(page(records))


if __name__ == "__main__":
    main()
