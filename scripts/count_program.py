"""Count the kernels of a training step and the bytes they move, compiled for an accelerator.

    python scripts/count_program.py --target=h100 --network=lresnet50 --batch=256
        [--budget=tests/plan/budgets.json [--write_budget]]

The accelerator need not be there, only XLA's compiler for it (uniface_jax/plan/topology.py). Bytes
are those of one device's step, by kind of kernel (uniface_jax/plan/kernels.py), and what they take
at the rate of the device's memory by its data sheet; products are counted as arithmetic beside it.
These counts do not drift as seconds do: with --budget the status is 1 where one is 2 % above what
the file says of the same step. The loss is UCE; all else is the base config's.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.models.vit import ATTENTIONS
from uniface_jax.plan import counted, program, targets, work

TOLERANCE = 0.02
CASE = ("target", "devices", "network", "batch", "dtype", "attention", "images", "classes")


def main() -> None:
    args = parsed()
    jax.config.update("jax_platforms", "cpu")
    case = {key: getattr(args, key) for key in CASE}
    target = targets.parse(args.target, args.devices)
    budgets = read_budgets(args.budget, args.write_budget) if args.budget else {}
    if args.budget and not args.write_budget and name_of(case) not in budgets:
        raise UserError(f"{args.budget}: no budget of {name_of(case)}; --write_budget adds it")
    config = configs.base()
    config.model.name, config.model.dtype = args.network, args.dtype
    config.model.vit.attention = args.attention
    config.batch_size, config.micro_batches = args.batch, 1
    configs.check(config, target.devices)
    recipe = program.planned(config, args.images, args.classes, target)
    flops = work.count(program.trace(recipe, target.devices), target.devices).flops
    found = counted.count(recipe, target)
    if args.save_text:
        args.save_text.write_bytes(gzip.compress(found.text.encode()))
    about = {
        "network": args.network,
        "batch_size": args.batch,
        "classes": args.classes,
        "flops": flops,
    }
    if args.json:
        args.json.write_text(json.dumps(about | found.as_json(), indent=2) + "\n")
    print(
        f"{args.network}, batch {args.batch}, {args.classes:,} classes on {target.devices} of "
        f"{target.name}: compiled in {found.seconds:.0f} s, {found.memory.total / 1e9:.2f} GB"
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


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h100", help="as for uniface plan")
    parser.add_argument("--devices", type=int, default=1, help="GPUs of all hosts")
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
    return " ".join(f"{key}={case[key]}" for key in CASE)


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
