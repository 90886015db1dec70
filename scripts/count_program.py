"""Count the kernels of a training step and the bytes they move, compiled for an accelerator.

    python scripts/count_program.py --target=h100 --network=lresnet50 --batch=256
        [--budget=tests/plan/budgets.json [--write_budget]]
    python scripts/count_program.py --target=h100 --devices=8 --config=ms1mv3:r50

The accelerator need not be there, only XLA's compiler for it (uniface_jax/plan/topology.py). Bytes
are those of one device's step, by kind of kernel (uniface_jax/plan/kernels.py), and what they take
at the rate of the device's memory by its data sheet, beside the operations of the kind's products.
These counts do not drift as seconds do: with --budget the status is 1 where one is 2 % above what
the file says of the same step. The step is a recipe's with --config; else the loss is UCE, and all
that has no flag is the base config's.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.cli.recipes import load, locate
from uniface_jax.config.facts import facts_of
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.models.vit import ATTENTIONS
from uniface_jax.plan import counted, program, targets, work

TOLERANCE = 0.02
CASE = ("target", "devices", "network", "batch", "dtype", "attention", "images", "classes")
RECIPE_CASE = ("target", "devices", "config")


def main() -> None:
    args = parsed()
    jax.config.update("jax_platforms", "cpu")
    case = {key: getattr(args, key) for key in (RECIPE_CASE if args.config else CASE)}
    target = targets.parse(args.target, args.devices)
    budgets = read_budgets(args.budget, args.write_budget) if args.budget else {}
    if args.budget and not args.write_budget and name_of(case) not in budgets:
        raise UserError(f"{args.budget}: no budget of {name_of(case)}; --write_budget adds it")
    config, images, classes = chosen(case)
    configs.check(config, target.devices)
    recipe = program.planned(config, images, classes, target)
    flops = work.count(program.trace(recipe, target.devices), target.devices).flops
    found = counted.count(recipe, target)
    if args.save_text:
        args.save_text.write_bytes(gzip.compress(found.text.encode()))
    about = {
        "network": config.model.name,
        "batch_size": config.batch_size,
        "classes": classes,
        "flops": flops,
    }
    if args.json:
        args.json.write_text(json.dumps(about | found.as_json(), indent=2) + "\n")
    print(
        f"{config.model.name}, batch {config.batch_size}, {classes:,} classes on {target.devices} "
        f"of {target.name}: compiled in {found.seconds:.0f} s, {found.memory.total / 1e9:.2f} GB"
    )
    print(counted.table(found, flops))
    if args.write_budget:
        budgets[name_of(case)] = {"case": case, "jax": jax.__version__, "counts": counts_of(found)}
        write_bytes(args.budget, (json.dumps(budgets, indent=1) + "\n").encode())
    elif args.budget:
        budget = budgets[name_of(case)]
        more = raised(counts_of(found), budget["counts"])
        if more:
            listed = "\n".join(more)
            sys.exit(f"above the budget, which was counted by jax {budget['jax']}:\n{listed}")
        print(f"within {TOLERANCE:.0%} of the budget")


def chosen(case: Mapping[str, Any]) -> tuple[ConfigDict, int, int]:
    """Return a case's config, images and classes: a recipe's, or of its own. Raises UserError."""
    if "config" in case:
        located = locate(case["config"])
        module, config = load(located)
        facts = facts_of(module, located.variant)
        if facts is None:
            raise UserError(f"--config={case['config']}: does not say how large its data are")
        return config, facts.data.images, facts.data.identities
    config = configs.base()
    config.model.name, config.model.dtype = case["network"], case["dtype"]
    config.model.vit.attention = case["attention"]
    config.batch_size, config.micro_batches = case["batch"], 1
    return config, case["images"], case["classes"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h100", help="as for uniface plan")
    parser.add_argument("--devices", type=int, default=1, help="GPUs of all hosts")
    parser.add_argument("--config", help="a recipe's step, whatever the six flags after this say")
    parser.add_argument("--network", default="lresnet50")
    parser.add_argument("--batch", type=int, default=256, help="images of all devices")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--attention", choices=ATTENTIONS, default="einsum", help="ViTs'")
    parser.add_argument("--images", type=int, default=490_623, help="of the training set")
    parser.add_argument("--classes", type=int, default=10_572, help="of the training set")
    parser.add_argument("--json", type=Path, help="file for all counts")
    parser.add_argument("--save_text", type=Path, help="file for the program's text, gzipped")
    parser.add_argument("--budget", type=Path, help="file of counts that none may exceed by 2 %%")
    parser.add_argument(
        "--write_budget", action="store_true", help="put these counts there instead"
    )
    args = parser.parse_args()
    if args.write_budget and not args.budget:
        parser.error("--write_budget: give --budget=FILE too")
    return args


def name_of(case: Mapping[str, Any]) -> str:
    """Return a step's name among the budgets, all that it is counted for."""
    return " ".join(f"{key}={value}" for key, value in case.items())


def read_budgets(file: Path, may_be_new: bool) -> dict[str, Any]:
    """Return the budgets in a file by name. Raises UserError."""
    if may_be_new and not file.exists():
        return {}
    found = read_json(file, "--write_budget writes it")
    if not isinstance(found, dict):
        raise UserError(f"{file}: not the budgets that --write_budget writes")
    return found


def counts_of(found: counted.Counted) -> dict[str, dict[str, int]]:
    """Return kernels and bytes of each kind, and of all."""
    kinds = found.kinds | {"all": found.total}
    return {kind: {"kernels": total.kernels, "bytes": total.bytes} for kind, total in kinds.items()}


def raised(
    counts: Mapping[str, Mapping[str, int]], budget: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return a line for each count that is more than 2 % above the budget's, kinds of none too."""
    return [
        f"{kind}: {now:,} {unit}; the budget is {before:,}"
        for kind, totals in counts.items()
        for unit, now in totals.items()
        for before in [budget.get(kind, {}).get(unit, 0)]
        if now > before * (1 + TOLERANCE)
    ]


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")
