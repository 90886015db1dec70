"""What the head needs on each device for millions of classes, by the compiler's own account.

    python scripts/table_head_memory.py

The head's loss and gradients are compiled, never run, for so many virtual devices, and the
compiler's memory analysis stands next to a formula. It is the head as accelerators have it, without
the CPU's kernel:

    held     = 4 bytes x (2 S D + b D)           S = ceil(C/n) prototypes, gradients; own features
    working  = 4 bytes x (4 B K + 2 K D + 2 B D) + S     K classes in a block, B in the whole batch
               4 bytes x (3 B S + 2 B D) + S             where one block has all S

"dense" is what a single [B, S] matrix of logits would take on each device.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from uniface_jax.cli import say
from uniface_jax.head.block_size import working_bytes
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.runtime import xla_flags

BATCH, DIMENSION = 4096, 512
CLASSES, DEVICES = (2_000_000, 10_000_000, 100_000_000), (8, 64, 512)


def predict(num_classes: int, devices: int, block: int) -> tuple[int, int]:
    """Bytes on each device: arguments and results, and working memory."""
    rows = -(-num_classes // devices)
    held = 2 * rows * DIMENSION + 2 * BATCH // devices * DIMENSION
    return 4 * held, working_bytes(BATCH, DIMENSION, rows, block)


def analyse(devices: int, block_memory: float) -> None:
    """Prints a line of JSON for each number of classes; runs in a process with so many devices."""
    xla_flags.set_flags()
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from uniface_jax import losses
    from uniface_jax.head.block_size import block_of_budget, even_block
    from uniface_jax.head.blocks import Prototypes
    from uniface_jax.head.loss import Gradients, Products, Shard, loss_and_gradients
    from uniface_jax.head.positives import gather
    from uniface_jax.native import build
    from uniface_jax.runtime.parallel import AXIS

    loss = losses.create("uce")
    block = block_of_budget(block_memory, BATCH, DIMENSION)
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    gradients = Gradients(split, split, whole)

    for num_classes in CLASSES:
        rows = shard_size(num_classes, devices)

        def device(features, labels, weight, bias, num_classes=num_classes, rows=rows):
            start, valid = owned_classes(num_classes, rows)
            shard = Shard(Prototypes(weight, bias, valid), start, rows)
            result = loss_and_gradients(
                loss, shard, gather(features, labels), products=Products(block)
            )
            return result.loss, result.gradients

        mapped = jax.shard_map(
            device,
            mesh=mesh,
            in_specs=(split, split, split, whole),
            out_specs=(whole, gradients),
            check_vma=False,
        )
        arguments = [
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
            for shape, dtype, spec in [
                ((BATCH, DIMENSION), jnp.float32, split),
                ((BATCH,), jnp.int32, split),
                ((rows * devices, DIMENSION), jnp.float32, split),
                ((), jnp.float32, whole),
            ]
        ]
        with build.off():
            memory = jax.jit(mapped).lower(*arguments).compile().memory_analysis()
        row = {
            "classes": num_classes,
            "devices": devices,
            "block": even_block(rows, block),
            "held": memory.argument_size_in_bytes + memory.output_size_in_bytes,
            "working": memory.temp_size_in_bytes,
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block-memory", type=float, default=512.0, help="MiB, as in config.py")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.devices:
        analyse(args.devices, args.block_memory)
        return
    rows = []
    say(f"batch {BATCH}, {DIMENSION} dimensions, float32, MiB on each device")
    say(
        f"{'classes':>12} {'devices':>8} {'held':>9} {'working':>9} {'sum':>9} {'formula':>9}"
        f" {'error':>6} {'dense':>9}"
    )
    for devices in DEVICES:
        flags = f"--xla_force_host_platform_device_count={devices}"
        lines = subprocess.run(
            [
                sys.executable,
                __file__,
                f"--devices={devices}",
                f"--block-memory={args.block_memory}",
            ],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.splitlines()
        for row in map(json.loads, lines):
            held, working = predict(row["classes"], devices, row["block"])
            dense = 4 * BATCH * -(-row["classes"] // devices)
            total = row["held"] + row["working"]
            row |= {"formula_held": held, "formula_working": working, "dense": dense}
            row["error"] = (held + working) / total - 1
            rows.append(row)
            cells = [row["held"], row["working"], total, held + working]
            say(
                f"{row['classes']:12,} {devices:8}"
                + "".join(f" {cell / 2**20:9.0f}" for cell in cells)
                + f" {row['error']:+6.1%} {dense / 2**20:9.0f}"
            )
    if args.json:
        temporary = args.json.with_suffix(".tmp")
        temporary.write_text(json.dumps(rows, indent=2) + "\n")
        temporary.replace(args.json)


if __name__ == "__main__":
    main()
