"""Print what large runs send between their devices, read from programs compiled for them.

    python scripts/table_distributed.py [--only=vit_l,...] [--shallow] [--json=FILE]

The accelerators need not be there, only their compilers (uniface_jax/plan/topology.py). A step
should gather the features once, scatter the sum of their gradients once, and sum the network's
gradients; nothing of the prototypes' size [C, D] may travel, and a tenth of each device should stay
free. Status 1 where one does otherwise. --shallow compiles one block a stage, or a ViT of two, in a
tenth of the time: what is sent is the same but for the size of the network's gradients, and the
compiler's memory is that of the shallow network. Beside it stands the memory of the whole network
by the plan's arithmetic, which needs no compiler.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from recipes import recipes  # the sibling script
from tqdm import tqdm

from uniface_jax.cli import say
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.head.shards import shard_size
from uniface_jax.plan import counted, kernels, memory, program, targets
from uniface_jax.plan.fleet import GB
from uniface_jax.plan.kernels import COLLECTIVE, Kernel
from uniface_jax.runtime.xla_flags import set_flags
from uniface_jax.train.from_config import Recipe

FLOAT_BYTES = 4
RESERVE, DOES_NOT_FIT = 0.1, "DOES NOT FIT"  # of a device left free, as uniface plan does
SMALL_BYTES = 1 << 16  # of statistics, counts and single numbers, which are many and cost nothing


class Case(NamedTuple):
    """Recipe on a target's devices; classes: instead of its data set's. changes: to its config."""

    recipe: str
    target: str
    devices: int = 1
    classes: int | None = None
    changes: Mapping[str, Any] = {}


CASES = {
    "r200-h100": Case("webface42m", "h100", 64),
    "r200-v5e": Case("webface42m", "v5e:8x8"),
    "vit_l": Case("webface42m:vit_l", "h100", 128),
    "29M": Case("ms1mv3:r50", "h100", 8, 29_000_000),
    "100M": Case("ms1mv3:r50", "h100", 512, 100_000_000, {"batch_size": 16_384}),
}


class Sent(NamedTuple):
    """Collectives of a step by what they are for: how many, and the bytes that a device gives.

    faults: lines about what should not be.
    """

    gathers: int
    gathered: int
    scatters: int
    scattered: int
    sums: int
    summed: int
    small: int
    faults: list[str]


def sent(found: list[Kernel], recipe: Recipe, devices: int) -> Sent:
    """Sort the collectives among the kernels of one device's step."""
    sizes = recipe.config
    width = sizes.model.embedding_size
    features = sizes.batch_size // sizes.micro_batches * width * FLOAT_BYTES
    rows = max(int(shard_size(recipe.num_classes, devices) * sizes.head.sampling_rate), 1)
    each = [k for k in found if k.kind == COLLECTIVE]
    # Compilers for TPUs may gather by a sum of features among zeros, in the program's order the
    # first, and scatter by a sum of which each device keeps its own.
    samples = (sizes.batch_size // sizes.micro_batches, width)
    whole = [
        k for k in each if "all-reduce" in k.name and [a.shape for a in k.results] == [samples]
    ]
    gathers = [k for k in each if "gather" in k.name and k.read >= features // devices]
    scatters = [k for k in each if "scatter" in k.name and k.read >= features]
    if not gathers:
        gathers, whole = whole[:1], whole[1:]
    scatters = scatters or whole
    others = [k for k in each if k not in gathers + scatters]
    small = [k for k in others if k.read < SMALL_BYTES]
    sums = [k for k in others if k not in small]
    expected = sizes.micro_batches
    allowed = {leaf.shape for leaf in jax.tree.leaves(recipe.shapes.weights.network)} | {samples}
    faults = [
        f"{kernel.name}: {array.dtype}{list(array.shape)} has the prototypes' size"
        for kernel in each
        if kernel not in gathers  # whose features may be of more images than there are classes
        for array in kernel.results
        if array.shape[-1:] == (width,) and math.prod(array.shape) >= rows * width
        if array.shape not in allowed
    ]
    for name, kernels_ in (("gathers of features", gathers), ("scatters", scatters)):
        if (times := sum(k.times for k in kernels_)) != expected:
            faults.append(f"{times} {name}, where {expected} are expected")
    faults += [f"{k.name}: runs {k.times} times" for k in sums if k.times != 1]
    counts = [
        value
        for group in (gathers, scatters, sums)
        for value in (sum(k.times for k in group), sum(k.times * k.read for k in group))
    ]
    return Sent(*counts, sum(k.times for k in small), faults)


def recipe_of(case: Case, shallow: bool) -> tuple[Recipe, targets.Target]:
    """Return what is compiled for a case."""
    target = targets.parse(case.target, case.devices)
    facts, config = recipes()[case.recipe]
    config.update_from_flattened_dict(dict(case.changes))
    if shallow and "vit" in config.model.name:
        config.model.vit.depth = 2
    elif shallow:
        config.model.stage_sizes = (1, 1, 1, 1)
    classes = case.classes or facts.data.identities
    return program.planned(config, facts.data.images, classes, target), target


def network_bytes(recipe: Recipe) -> int:
    """Return the bytes of all parameters, whose gradients are summed."""
    leaves = jax.tree.leaves(recipe.shapes.weights.network)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def planned_bytes(case: Case) -> int:
    """Return the bytes of a device by the plan's arithmetic for the whole network."""
    recipe, target = recipe_of(case, shallow=False)
    jaxpr = program.trace(recipe, target.devices)
    network = memory.traced_network(recipe, target, jaxpr)
    return memory.predict(recipe, target.devices, network).total


def fitting(needed: int, target: targets.Target) -> str:
    """Return so many GB of a device's, and whether they fit, with a tenth of it free."""
    size = target.card.memory
    fits = "fits" if needed <= (1 - RESERVE) * size else DOES_NOT_FIT
    return f"{needed / GB:.1f} of {size / GB:.0f}: {fits}"


def row(name: str, case: Case, shallow: bool) -> tuple[tuple[str, ...], Sent]:
    recipe, target = recipe_of(case, shallow)
    whole = fitting(planned_bytes(case), target)
    found = counted.count(recipe, target)
    moved = sent(kernels.kernels(found.text), recipe, target.devices)
    compiled = fitting(found.memory.total, target)
    moved.faults.extend(cell for cell in (whole, compiled) if DOES_NOT_FIT in cell)
    cells = (
        name, f"{target.devices} of {target.name}", f"{recipe.num_classes:,}",
        f"{recipe.config.batch_size:,}", whole, compiled,
        f"{moved.gathers}, {moved.gathered / 1e6:.3g}",
        f"{moved.scatters}, {moved.scattered / 1e6:.3g}",
        f"{moved.sums}, {moved.summed / 1e6:.4g} of {network_bytes(recipe) / 1e6:.4g}",
        str(moved.small), "; ".join(moved.faults) or "none",
    )  # fmt: skip
    return cells, moved


HEADS = (
    "case", "devices", "classes", "batch", "GB of a device by arithmetic", "by the compiler",
    "gathers of features, MB", "scatters of their gradients, MB",
    "sums, MB, and of the network's parameters", "small ones", "otherwise than intended",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(CASES), help="cases by name, with commas between"
    )
    parser.add_argument("--shallow", action="store_true", help="networks of one block a stage")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - CASES.keys():
        parser.error(f"--only={args.only}: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}")
    set_flags()  # as a run has them: which collectives run beside computation
    jax.config.update("jax_platforms", "cpu")
    say(*("| " + " | ".join(cells) + " |" for cells in (HEADS, ("---",) * len(HEADS))))
    record: dict[str, Any] = {}
    for name in (bar := tqdm(names, unit="case")):
        bar.set_description(name)
        cells, moved = row(name, CASES[name], args.shallow)
        say("| " + " | ".join(cells) + " |")
        record[name] = dict(zip(HEADS, cells, strict=True)) | moved._asdict()
    if args.json:
        write_bytes(args.json, (json.dumps(record, indent=1) + "\n").encode())
    sys.exit(any(found["faults"] for found in record.values()))


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")
