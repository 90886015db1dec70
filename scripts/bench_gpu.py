"""A training step on one GPU in half precision, against the same in PyTorch, and its share of peak.

    python scripts/bench_gpu.py --networks=lresnet50,lresnet100 --batches=128,512 --json=gpu.json

The release's networks with the UCE head over all classes, SGD with clipping; ours in bfloat16 (the
head's products too), PyTorch in four forms:
    torch               channels last, autocast to bfloat16
    torch compiled      the same by torch.compile
    torch max-autotune  the same by torch.compile(mode="max-autotune"), which tries for minutes
    arcface_torch       insightface's way: float16 autocast, loss scaling, channels first
Each side in a process of its own, taking turns of `--steps` steps. FLOPs are those of the products
and the roof is that of scripts/roofline.py; peak is the data sheet's 989 TFLOP/s of an H100, and
beside it stands what a plain product reaches in the same run. PyTorch is optional: without it its
rows are left out.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from roofline import DEVICES, bound, step_parts
from turns import Worker, interleave, ratios, serve, spread, write_json

from uniface_jax import models
from uniface_jax.cli import say
from uniface_jax.head.block_size import block_of_budget
from uniface_jax.runtime.xla_flags import set_flags
from uniface_jax.state import class_sharded, create_state

DEVICE = "H100 SXM"
SIDE = 8192  # of the plain product's matrices
DIM = 512


def inputs(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.batch, 112, 112, 3), np.uint8)
    return images, rng.integers(0, args.classes, args.batch).astype(np.int32)


def check_gpu(args: argparse.Namespace) -> None:
    import jax

    if jax.default_backend() == "cpu" and not args.any_device:
        raise RuntimeError("JAX finds no GPU")


def ours(args: argparse.Namespace, about: dict[str, float]) -> Callable:
    set_flags()
    import jax
    import jax.numpy as jnp

    from uniface_jax import losses
    from uniface_jax.runtime import parallel
    from uniface_jax.train import step

    check_gpu(args)
    own = {"attention": args.attention} if models.family(args.network) == "vit" else {}
    network = models.create(args.network, dtype="bfloat16", **own)
    loss = losses.create("uce")
    images, labels = inputs(args)
    state = jax.device_get(create_state(network, loss, args.classes, 1.0, 0))
    runner = parallel.create_runner("auto", class_sharded(state), jax.devices()[:1])
    block = block_of_budget(None, args.batch, DIM)
    settings = step.Settings(args.classes, block_size=block, product_dtype=jnp.bfloat16)
    train_step = runner.compile(step.make_step(network, loss, lambda _: 0.1, settings))
    placed = [runner.place(state)]
    del state
    batch = runner.put({"image": images, "label": labels})
    compiled: list = []

    def run() -> None:
        if not compiled:  # in the first turn's time, as in a run
            compiled.append(parallel.compiled_for(train_step, placed[0], batch))
        for _ in range(args.steps):
            placed[0], metrics = compiled[0](placed[0], batch)
        about["loss"] = float(metrics["loss"])
        statistics = jax.devices()[0].memory_stats() or {}  # CPUs have none
        about["device_bytes"] = statistics.get("peak_bytes_in_use", 0)

    return run


def theirs(
    args: argparse.Namespace,
    about: dict[str, float],
    *,
    half: str = "bfloat16",
    last: bool = True,
    mode: str | None = None,
) -> Callable:
    """PyTorch's step; mode: torch.compile's, None for a network that is not compiled."""
    import torch
    from torch_families import in_torch
    from torch_network import training_step

    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU")
    torch.backends.cudnn.benchmark = True
    images, labels = inputs(args)
    layout = torch.channels_last if last else torch.contiguous_format
    net = in_torch(models.create(args.network)).cuda().to(memory_format=layout)
    pixels = (torch.as_tensor(images).permute(0, 3, 1, 2).cuda().float() - 127.5) / 127.5
    pixels = pixels.contiguous(memory_format=layout)
    if mode:
        net = torch.compile(net, mode=mode)
    step = training_step(
        net, args.classes, pixels, torch.as_tensor(labels).long().cuda(), getattr(torch, half)
    )

    def run() -> None:
        for _ in range(args.steps):
            loss = step()
        about["loss"] = float(loss)
        about["device_bytes"] = torch.cuda.max_memory_allocated()

    return run


def matmul(args: argparse.Namespace, about: dict[str, float]) -> Callable:
    import jax
    import jax.numpy as jnp

    check_gpu(args)
    # Random: on zeros the card is faster than on any real data.
    square = jax.random.normal(jax.random.key(0), (args.side, args.side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)

    def run() -> None:
        for _ in range(args.steps):
            result = product(square, square)
        result.block_until_ready()

    return run


VARIANTS: dict[str, Callable[[argparse.Namespace, dict[str, float]], Callable]] = {
    "matmul": matmul,
    "torch": theirs,
    "torch compiled": lambda *a: theirs(*a, mode="default"),
    "torch max-autotune": lambda *a: theirs(*a, mode="max-autotune"),
    "arcface_torch": lambda *a: theirs(*a, half="float16", last=False),
    "ours": ours,
}


def measure(args: argparse.Namespace, network: str, classes: int, batch: int) -> list[dict]:
    """One row a variant."""
    arguments = [
        f"--attention={args.attention}",
        f"--network={network}",
        f"--class-count={classes}",
        f"--batch={batch}",
        f"--side={args.side}",
        *(["--any_device"] if args.any_device else []),
    ]
    names = ["matmul", *args.variants.split(",")]
    if find_spec("torch") is None:
        names = ["matmul", "ours"]
    workers = {
        name: Worker(__file__, name, [*arguments, f"--steps={args.steps}"], args.most_seconds)
        for name in names
    }
    interleave(list(workers.values()), args.turns)
    for worker in workers.values():
        worker.end()
    plain = workers.pop("matmul")
    if plain.failed:
        raise SystemExit(f"error: {plain.failed}")
    # The arithmetic of roofline.py is that of IR-ResNets.
    counted = network in models.NETWORKS
    parts = step_parts(network, batch, classes) if counted else {}
    flops = sum(part.flops for part in parts.values())
    roof = sum(bound(part, DEVICE)[0] for part in parts.values())
    rows = []
    for name, worker in workers.items():
        row: dict = {"network": network, "classes": classes, "batch": batch, "variant": name}
        row["plain_tflops"] = 2e-12 * args.side**3 * args.steps / plain.median()
        if worker.failed:
            row["failed"] = worker.failed
        if worker.turns:
            seconds = worker.median() / args.steps
            row |= {
                "milliseconds": 1e3 * seconds,
                "images_per_second": batch / seconds,
                "share_of_peak": flops / seconds / (DEVICES[DEVICE][0] * 1e12) if counted else None,
                "share_of_roof": roof / seconds if counted else None,
                "device_gib": max(worker.values("device_bytes")) / 2**30,
                "first_seconds": worker.values("first_seconds")[0],
                "loss": worker.values("loss")[-1],
            }
            if name != "ours" and workers["ours"].turns:
                row["times_ours"] = ratios(workers["ours"], worker)
        rows.append(row)
        show(row)
    return rows


def show(row: dict) -> None:
    label = f"{row['network']:10} {row['classes']:7} {row['batch']:4} {row['variant']:18}"
    if "milliseconds" not in row:
        say(f"{label} failed: {row.get('failed')}")
        return
    shares = "     -      -"
    if row["share_of_peak"] is not None:
        shares = f"{row['share_of_peak']:6.0%} {row['share_of_roof']:6.0%}"
    say(
        f"{label} {row['milliseconds']:8.1f} {row['images_per_second']:8.0f} "
        f"{shares} {row['device_gib']:6.1f} "
        f"{row['first_seconds']:8.1f} {row['plain_tflops']:7.0f}  {spread(row.get('times_ours'))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="lresnet50,lresnet100")
    parser.add_argument("--classes", default="10572,360232")
    parser.add_argument("--batches", default="128,256,512")
    parser.add_argument("--variants", default="torch,arcface_torch,ours")
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--most_seconds", type=float, default=3600.0,
                        help="of one turn, with compilation; what takes more fails")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=SIDE, help="of the plain product's matrices")
    parser.add_argument("--any_device", action="store_true", help="also where there is no GPU: "
                        "peak and roof are an H100's all the same")  # fmt: skip
    parser.add_argument("--attention", default="einsum", help="of a ViT: einsum or cudnn")
    parser.add_argument("--network", choices=models.REGISTRY, help=argparse.SUPPRESS)
    parser.add_argument("--class-count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        args.classes = args.class_count
        about: dict[str, float] = {}
        serve(lambda job: VARIANTS[args.variant](args, about), warm=True, about=about)
        return
    names = args.variants.split(",")
    if "ours" not in names or not set(names) <= set(VARIANTS):
        parser.error(f"--variants={args.variants}: expected ours and any of {', '.join(VARIANTS)}")
    # Several processes share the card: none may take most of its memory beforehand.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    say(f"{'':42} {'ms':>8} {'images/s':>8} {'peak':>6} {'roof':>6} {'GiB':>6} {'first s':>8} "
          f"{'plain T':>7}  times ours")  # fmt: skip
    rows = []
    for network in args.networks.split(","):
        for classes in map(int, args.classes.split(",")):
            for batch in map(int, args.batches.split(",")):
                rows += measure(args, network, classes, batch)
                write_json(args.json, {"device": DEVICE, "rows": rows})
    if not any(row["variant"] == "ours" and "milliseconds" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
