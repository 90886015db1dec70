"""A whole training step, and inference, against the same in plain PyTorch.

    python scripts/bench_train.py --networks=r18,r50 --batches=16 --json=train.json
    python scripts/bench_train.py --networks=vit_t,mbf --batches=32
    python scripts/bench_train.py --networks=r18,r50 --compile

Network, UCE head over 10,572 classes, clipping, SGD, batch statistics; each side in a process of
its own, taking turns, since a shared machine's speed drifts. Printed are medians and, of the ratios
taken turn by turn, the median with the lowest and the highest; memory is the most that the process
had, and that beyond what it had after its imports. As `python -m uniface_jax.train` does, our side
runs each step in the thread that asks for it and keeps its memory (runtime/kept_memory.py).
`--variants` adds our step in bfloat16 and with blocks recomputed (remat); `--compile` PyTorch with
maps laid out as it convolves them fastest (channels_last), and that network and loss by
torch.compile, whose compilation is in "first s". PyTorch is optional: without it its rows are left
out.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from turns import (
    Worker,
    interleave,
    peak_bytes,
    quotients,
    ratios,
    serve,
    spread,
    write_json,
)  # fmt: skip

from uniface_jax import models
from uniface_jax.cli import say
from uniface_jax.runtime.xla_flags import set_flags
from uniface_jax.state import class_sharded, create_state

CLASSES = 10_572
RESNETS = {  # stage sizes, width
    "small": ((1, 1, 1, 1), 16),
    "r18": ((2, 2, 2, 2), 64),
    "r50": ((3, 4, 14, 3), 64),
}
NETWORKS = (*RESNETS, "vit_t", "mbf")
WHAT = {"both": (False, True), "training": (False,), "inference": (True,)}


def network_of(name: str, **overrides: object) -> models.Network:
    if name in RESNETS:
        sizes, width = RESNETS[name]
        return models.create("lresnet50", stage_sizes=sizes, width=width, **overrides)
    return models.create(name, **overrides)


def inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, 112, 112, 3), np.uint8)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def inference(network: models.Network, images: np.ndarray, about: dict) -> Callable:
    """Return the run that embeds the images; the network alone is in memory, as after loading."""
    import jax

    from uniface_jax.inference.network import make_embed

    rng = np.random.default_rng(0)

    def weights(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jax.numpy.asarray(np.ones(leaf.shape, np.float32))  # nothing is compiled for it
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.1
        return jax.numpy.asarray(
            rng.standard_normal(leaf.shape, np.float32) * np.float32(deviation)
        )

    about["imports_bytes"] = peak_bytes()
    shapes = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    params, batch_stats = jax.tree_util.tree_map_with_path(weights, shapes)
    embed = make_embed(network, mirror=False)
    return lambda: embed({"params": params, "batch_stats": batch_stats}, images)


def ours(args: argparse.Namespace, about: dict, **overrides) -> Callable:
    set_flags()
    import jax

    from uniface_jax import losses
    from uniface_jax.runtime import kept_memory, parallel
    from uniface_jax.train import step

    if not args.inference:
        kept_memory.run_steps_alone()
    network = network_of(args.network, **overrides)
    images, labels = inputs(args.batch)
    if args.inference:
        return inference(network, images, about)
    loss = losses.create("uce")
    about["imports_bytes"] = peak_bytes()
    state = jax.device_get(create_state(network, loss, CLASSES, 1.0, 0))
    runner = parallel.create_runner("shard_map", class_sharded(state), jax.devices()[:1])
    train_step = runner.compile(
        step.make_step(network, loss, lambda _: 0.1, step.Settings(CLASSES))
    )
    placed = [runner.place(state)]
    del state  # training keeps no copy either
    batch = runner.put({"image": images, "label": labels})
    compiled: list = []

    def run() -> None:
        if first := not compiled:  # in the first step's time, as in a run
            compiled.append(parallel.compiled_for(train_step, placed[0], batch))
        placed[0], metrics = compiled[0](placed[0], batch)
        jax.block_until_ready((placed[0], metrics))
        if first:
            kept_memory.keep()

    return run


def theirs(
    args: argparse.Namespace, about: dict, layout: str = "contiguous_format", compiled: bool = False
) -> Callable:
    if compiled:  # every time, as ours: no file of an earlier run
        os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    import torch
    from torch_families import in_torch
    from torch_network import training_step

    if compiled:
        import torch._inductor.compile_fx  # else imported as it compiles
    images, labels = inputs(args.batch)
    about["imports_bytes"] = peak_bytes()
    memory_format = getattr(torch, layout)
    net = in_torch(network_of(args.network)).to(memory_format=memory_format)
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).float().contiguous()
    pixels = ((pixels - 127.5) / 127.5).contiguous(memory_format=memory_format)
    if args.inference:
        net.eval()
        embed = torch.compile(net) if compiled else net

        def forward() -> None:
            with torch.inference_mode():
                embed(pixels)

        return forward
    labels = torch.as_tensor(labels).long()
    return training_step(net, CLASSES, pixels, labels, compiled=compiled)


VARIANTS: dict[str, Callable[[argparse.Namespace, dict], Callable]] = {
    "torch": theirs,
    "channels": partial(theirs, layout="channels_last"),
    "compiled": partial(theirs, layout="channels_last", compiled=True),
    "ours": ours,
    "bfloat16": lambda args, about: ours(args, about, dtype="bfloat16"),
    "remat": lambda args, about: ours(args, about, remat=True),
}


def names_of(args: argparse.Namespace, inference: bool) -> list[str]:
    """List the variants that run, PyTorch's only where it is installed."""
    theirs = ["torch", *(["channels", "compiled"] if args.compile else [])]
    more = ["bfloat16", "remat"] if args.variants and not inference else []
    return [*(theirs if find_spec("torch") else []), "ours", *more]


def measure(args: argparse.Namespace, network: str, batch: int, inference: bool) -> list[dict]:
    """One row a variant."""
    arguments = [f"--network={network}", f"--batch={batch}", *["--inference"][: int(inference)]]
    workers = [Worker(__file__, name, arguments) for name in names_of(args, inference)]
    interleave(workers, args.turns)
    for worker in workers:
        worker.end()
    by_name = {worker.name: worker for worker in workers if worker.turns}
    rows = []
    for worker in workers:
        row = {"network": network, "batch": batch, "variant": worker.name}
        row["what"] = "inference" if inference else "training"
        if worker.failed:
            row["failed"] = worker.failed
        if worker.turns:
            row |= {
                "first_seconds": worker.values("first_seconds")[0],
                "seconds": worker.median(),
                "cpu_seconds": worker.median("cpu_seconds"),
                "images_per_second": batch / worker.median(),
                "peak_gib": max(worker.values("peak_bytes")) / 2**30,
                "imports_gib": worker.values("imports_bytes")[0] / 2**30,
            }
            row |= beside(worker, by_name)
        rows.append(row)
        show(row)
    return rows


def beside(worker: Worker, by_name: dict[str, Worker]) -> dict[str, dict]:
    """Return the ratios to PyTorch as it is, and of ours to torch.compile, where these ran."""
    found: dict[str, dict] = {}
    torch, compiled = by_name.get("torch"), by_name.get("compiled")
    if torch and worker is not torch:
        found["times_torch"] = ratios(worker, torch)
        found["times_torch_cpu"] = quotients(
            torch.values("cpu_seconds"), worker.values("cpu_seconds")
        )
    if compiled and worker.name not in ("torch", "channels", "compiled"):
        found["times_compiled"] = ratios(worker, compiled)
    return found


def show(row: dict) -> None:
    label = f"{row['what']:10} {row['network']:6} {row['batch']:4} {row['variant']:9}"
    if "seconds" not in row:
        say(f"{label} failed: {row.get('failed')}")
        return
    compiled = f"{'':7}{spread(row['times_compiled'])}" if "times_compiled" in row else ""
    say(
        f"{label} {row['seconds']:8.3f} {row['images_per_second']:8.1f} {row['peak_gib']:7.2f}"
        f" {row['peak_gib'] - row['imports_gib']:7.2f} {row['first_seconds']:8.1f}"
        f"  {spread(row.get('times_torch')):22} {spread(row.get('times_torch_cpu'))}{compiled}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--batches", default="16,32")
    parser.add_argument("--what", choices=WHAT, default="both")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--variants", action="store_true", help="bfloat16 and remat as well")
    parser.add_argument("--compile", action="store_true", help="PyTorch at its best as well")
    parser.add_argument("--quick", action="store_true", help="small network, batch 16, 3 turns")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--inference", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        about: dict[str, float] = {}
        serve(lambda job: VARIANTS[args.variant](args, about), warm=True, about=about)
        return
    if args.quick:
        args.networks, args.batches, args.turns = "small", "16", 3
    say(
        f"{'':33} {'seconds':>8} {'images/s':>8} {'GiB':>7} {'beyond':>7} {'first s':>8}"
        f"  {'times PyTorch':22} in processor time{' times torch.compile' if args.compile else ''}"
    )
    rows = []
    for network in args.networks.split(","):
        for batch in map(int, args.batches.split(",")):
            for inference in WHAT[args.what]:
                rows += measure(args, network, batch, inference)
    write_json(args.json, {"classes": CLASSES, "rows": rows})
    if not any(row["variant"] == "ours" and "seconds" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
