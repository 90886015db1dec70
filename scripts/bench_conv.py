"""LResNet50's convolutions in training, all three passes in GFLOP/s, and batch norm's sums.

    python scripts/bench_conv.py --batch=16 --json=conv.json

Before is XLA as it comes (plain convolution, its default kernels); after is this project
(uniface_jax.models.convolution with xla_flags); PyTorch has its default layout. All are float32, in
processes of their own that take turns; the share is of a plain 2048^3 product by JAX with the flags
of this project. The last rows are the sums over batch and positions of two terms, as batch norm
takes them, in ms.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from turns import Worker, interleave, serve, write_json

from uniface_jax.cli import say
from uniface_jax.runtime.xla_flags import set_flags

# Input side, channels in and out, kernel, stride, padding, how many of them the network has.
SHAPES = (
    (112, 3, 64, 3, 1, 1, 1),
    (112, 64, 64, 3, 1, 1, 1),
    (112, 64, 64, 2, 2, 0, 2),
    (56, 64, 64, 3, 1, 1, 4),
    (56, 64, 128, 3, 1, 1, 1),
    (56, 128, 128, 2, 2, 0, 1),
    (56, 64, 128, 2, 2, 0, 1),
    (28, 128, 128, 3, 1, 1, 6),
    (28, 128, 256, 3, 1, 1, 1),
    (28, 256, 256, 2, 2, 0, 1),
    (28, 128, 256, 2, 2, 0, 1),
    (14, 256, 256, 3, 1, 1, 26),
    (14, 256, 512, 3, 1, 1, 1),
    (14, 512, 512, 2, 2, 0, 1),
    (14, 256, 512, 2, 2, 0, 1),
    (7, 512, 512, 3, 1, 1, 4),
)
PARTS = ("forward", "input", "kernel")
SUMS = ((112, 64), (56, 64), (28, 128), (14, 256), (7, 512))
SIDE = 2048


def flops(shape: tuple, batch: int) -> float:
    side, inputs, outputs, kernel, stride, padding, _ = shape
    out = (side + 2 * padding - kernel) // stride + 1
    return 2 * batch * out**2 * kernel**2 * inputs * outputs


def in_jax(args: argparse.Namespace, part: str, number: int, after: bool) -> Callable:
    if after:
        set_flags()
    import jax
    import jax.numpy as jnp

    from uniface_jax.models.convolution import convolve, plain

    if part == "matmul":
        square = jnp.ones((SIDE, SIDE))
        return compiled(jnp.matmul, square, square)
    if part == "sums":
        return sums_in_jax(args, number, after)
    side, inputs, outputs, kernel, stride, padding, _ = SHAPES[number]
    x = jnp.ones((args.batch, side, side, inputs))
    weight = jnp.ones((kernel, kernel, inputs, outputs))
    conv = convolve if after else plain
    y = conv(x, weight, stride, padding)

    def run(x, weight, y):
        value, backward = jax.vjp(lambda x, weight: conv(x, weight, stride, padding), x, weight)
        return value if part == "forward" else backward(y)[PARTS.index(part) - 1]

    return compiled(run, x, weight, y)


def compiled(function: Callable, *arrays) -> Callable:
    import jax

    run = jax.jit(function).lower(*arrays).compile()
    return lambda: jax.block_until_ready(run(*arrays))


def sums_in_jax(args: argparse.Namespace, number: int, after: bool) -> Callable:
    import jax.numpy as jnp

    from uniface_jax.models.channels import channel_sums

    def terms(x):
        return x, jnp.square(x)

    def reduce(x):
        return channel_sums(terms, [x]) if after else [jnp.sum(v, (0, 1, 2)) for v in terms(x)]

    side, channels = SUMS[number]
    return compiled(reduce, jnp.ones((args.batch, side, side, channels)))


def in_torch(args: argparse.Namespace, part: str, number: int) -> Callable:
    import torch

    if part == "matmul":
        square = torch.ones(SIDE, SIDE)
        return lambda: square @ square
    if part == "sums":
        side, channels = SUMS[number]
        x = torch.ones(args.batch, channels, side, side)
        return lambda: torch.var_mean(x, (0, 2, 3))
    side, inputs, outputs, kernel, stride, padding, _ = SHAPES[number]
    x = torch.ones(args.batch, inputs, side, side)
    weight = torch.ones(outputs, inputs, kernel, kernel)
    if part == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding)
    y = torch.nn.functional.conv2d(x, weight, None, stride, padding)
    mask = [part == "input", part == "kernel", False]

    def backward() -> None:
        torch.ops.aten.convolution_backward(
            y, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask
        )

    return backward


VARIANTS: dict[str, Callable[..., Callable]] = {
    "before": partial(in_jax, after=False),
    "after": partial(in_jax, after=True),
    "torch": in_torch,
}


def of_job(job: str) -> tuple[str, int]:
    """Return part and number of the shape: "kernel-3" is the kernel gradient of SHAPES[3]."""
    part, _, number = job.partition("-")
    return part, int(number or 0)


def jobs(args: argparse.Namespace) -> list[str]:
    shapes = range(len(SHAPES)) if not args.quick else (3, 11)
    names = [f"{part}-{number}" for number in shapes for part in PARTS]
    sums = range(len(SUMS)) if not args.quick else (1,)
    return ["matmul", *names, *(f"sums-{number}" for number in sums)]


def measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds by job and variant; the variants of a job take turns."""
    variants = [name for name in VARIANTS if name != "torch" or find_spec("torch")]
    workers = [Worker(__file__, name, [f"--batch={args.batch}"]) for name in variants]
    seconds: dict[str, dict[str, float]] = {}
    for job in jobs(args):
        interleave(workers, args.turns, job)
        seconds[job] = {w.name: w.median(job=job) for w in workers if w.values(job=job)}
    for worker in workers:
        worker.end()
        if worker.failed:
            say(f"{worker.name} failed: {worker.failed}")
    return seconds


def show(args: argparse.Namespace, seconds: dict[str, dict[str, float]]) -> dict:
    plain = 2 * SIDE**3 / seconds["matmul"]["after"]
    say(f"plain {SIDE}^3 product: {plain / 1e9:.0f} GFLOP/s; before / after / PyTorch, (share)")
    rows = []
    for number, shape in enumerate(SHAPES):
        if f"forward-{number}" not in seconds:
            continue
        side, inputs, outputs, kernel, stride, _, count = shape
        row: dict = {"side": side, "inputs": inputs, "outputs": outputs, "kernel": kernel}
        row |= {"stride": stride, "in_network": count}
        words = []
        for part in PARTS:
            times = seconds[f"{part}-{number}"]
            row[part] = {name: flops(shape, args.batch) / t / 1e9 for name, t in times.items()}
            each = " / ".join(f"{row[part].get(name, float('nan')):4.0f}" for name in VARIANTS)
            words.append(f"{part} {each} ({row[part]['after'] * 1e9 / plain:4.0%})")
        name = (
            f"{side:3}x{side:<3} {inputs:3} to {outputs:3}, {kernel}x{kernel}/{stride}, x{count:<2}"
        )
        say(f"{name}  {'   '.join(words)}")
        rows.append(row)
    sums = []
    for number, (side, channels) in enumerate(SUMS):
        if times := seconds.get(f"sums-{number}"):
            sums.append({"side": side, "channels": channels, **times})
            each = " / ".join(f"{times.get(v, float('nan')) * 1e3:.2f}" for v in VARIANTS)
            say(f"{side:3}x{side:<3} {channels:3} channels, sums: {each} ms")
    ratios = [row[p]["after"] / row[p]["before"] for row in rows for p in PARTS]
    say(f"after is {statistics.median(ratios):.2f} times as fast as before (median of all)")
    return {"batch": args.batch, "matmul_gflops": plain / 1e9, "convolutions": rows, "sums": sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two shapes alone, 3 turns")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        serve(lambda job: VARIANTS[args.variant](args, *of_job(job)))
        return
    if args.quick:
        args.turns = 3
    write_json(args.json, show(args, measure(args)))


if __name__ == "__main__":
    main()
