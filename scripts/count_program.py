"""Count the kernels of a training step and the bytes they move, compiled for an accelerator.

    python scripts/count_program.py --target=h100 --network=lresnet50 --batch=256

The accelerator need not be there, only XLA's compiler for it (uniface_jax/plan/topology.py). Bytes
are those of one device's step, by kind of kernel (uniface_jax/plan/kernels.py), and what they take
at the rate of the device's memory by its data sheet; products are counted as arithmetic beside it.
These counts do not drift as seconds do. The loss is UCE; all else is the base config's.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

import jax

from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.models.vit import ATTENTIONS
from uniface_jax.plan import counted, program, targets, work


def main() -> None:
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
    args = parser.parse_args()

    jax.config.update("jax_platforms", "cpu")
    target = targets.parse(args.target, args.devices)
    config = configs.base()
    config.model.name, config.model.dtype = args.network, args.dtype
    config.model.vit.attention = args.attention
    config.batch_size, config.micro_batches = args.batch, 1
    configs.check(config, target.devices)
    recipe = program.planned(config, args.images, args.classes)
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


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")
