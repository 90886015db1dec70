"""Where a training step's time must go on an accelerator, as arithmetic from FLOPs and bytes.

    python scripts/roofline.py --model=lresnet50 --batch=256

Nothing is measured here. Each part of a step is given the larger of two times: its FLOPs at the
peak of the matrix units, its bytes at the peak of the memory, in bfloat16 with float32 weights. An
activation is written once and read once by each pass that needs it: batch norm reads its input
twice forward (statistics, then values) and twice backward. Convolutions read both operands and
write one. That is a bound from below; real kernels reach 40 to 70 % of it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from uniface_jax import models
from uniface_jax.cli import say

# Dense bfloat16 TFLOP/s, memory TB/s, of the vendors' data sheets.
DEVICES = {"H100 SXM": (989.0, 3.35), "TPU v5e": (197.0, 0.819)}
HALF, SINGLE = 2, 4  # bytes
IMAGE = models.IMAGE_SIZE


class Part(NamedTuple):
    """What one step does, for one kind of work."""

    flops: float
    bytes: float


class Conv(NamedTuple):
    """A convolution: side of the input and of the output map, channels, kernel."""

    side: int
    out: int
    inputs: int
    outputs: int
    kernel: int


def convolutions(model: str, width: int = 64) -> Iterator[Conv]:
    """All of a network's, in order."""
    network = models.create(model)
    strided, shortcut = network.strided_kernel, network.shortcut_kernel
    side, inputs = IMAGE, width
    yield Conv(side, side, 3, width, 3)
    for stage, size in enumerate(network.stage_sizes):
        outputs = width * 2**stage
        for index in range(size):
            yield Conv(side, side, inputs, outputs, 3)
            if index == 0:
                yield Conv(side, side // 2, outputs, outputs, strided)
                yield Conv(side, side // 2, inputs, outputs, shortcut)
                side //= 2
            else:
                yield Conv(side, side, outputs, outputs, 3)
            inputs = outputs


def step_parts(model: str, batch: int, classes: int, dim: int = 512) -> dict[str, Part]:
    """FLOPs and bytes of the parts of one training step."""
    every = list(convolutions(model))
    multiply = sum(2 * batch * c.out**2 * c.kernel**2 * c.inputs * c.outputs for c in every)
    maps_in = sum(batch * c.side**2 * c.inputs for c in every)
    maps_out = sum(batch * c.out**2 * c.outputs for c in every)
    last = 512 * (IMAGE // 16) ** 2
    weights = sum(c.kernel**2 * c.inputs * c.outputs for c in every) + last * dim
    # Every convolution has a batch norm after it, and one before it in front of each block; the
    # backward pass reads input and gradient twice and writes once.
    normalised = maps_out + sum(batch * c.side**2 * c.inputs for c in every if c.kernel == 3) / 2
    head = 3 * 2 * batch * classes * dim
    return {
        "convolutions": Part(3 * multiply, HALF * 3 * (maps_in + maps_out)),
        "batch norm, PReLU, sums": Part(30 * normalised, HALF * 8 * normalised),
        "last linear layer": Part(6 * batch * last * dim, HALF * 3 * last * dim),
        # Prototypes are read twice (loss, update) and their gradient and momentum go both ways.
        "head": Part(head, SINGLE * 6 * classes * dim),
        "update of the network": Part(6 * weights, SINGLE * 5 * weights),
    }


def bound(part: Part, device: str) -> tuple[float, str]:
    """Seconds at the nearer of the two roofs, and which it is."""
    flops, memory = DEVICES[device]
    by_flops, by_bytes = part.flops / (flops * 1e12), part.bytes / (memory * 1e12)
    return max(by_flops, by_bytes), "products" if by_flops > by_bytes else "memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=models.NETWORKS, default="lresnet50")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--classes", type=int, default=10_572)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    parts = step_parts(args.model, args.batch, args.classes)
    say(f"{args.model}, batch {args.batch}, {args.classes} classes: arithmetic, nothing measured")
    report: dict = {}
    for device, (flops, memory) in DEVICES.items():
        times = {name: bound(part, device) for name, part in parts.items()}
        total = sum(seconds for seconds, _ in times.values())
        work = sum(part.flops for part in parts.values())
        say(
            "",
            f"{device}: {flops:.0f} TFLOP/s, {memory} TB/s; they meet at"
            f" {flops / memory:.0f} FLOP a byte",
        )
        for name, part in parts.items():
            seconds, roof = times[name]
            say(
                f"  {name:24} {part.flops / 1e12:8.2f} TFLOP {part.bytes / 1e9:7.2f} GB"
                f" {part.flops / part.bytes:7.0f} FLOP/B {seconds * 1e3:8.2f} ms"
                f" {seconds / total:5.0%}  {roof}"
            )
        share = work / (flops * 1e12) / total
        rate = args.batch / total
        say(f"  at best {total * 1e3:.1f} ms, {rate:,.0f} images/s, {share:.0%} of peak")
        report[device] = {
            "seconds": total,
            "images_per_second": rate,
            "share_of_peak": share,
            "parts": {name: {"seconds": s, "roof": roof} for name, (s, roof) in times.items()},
        }
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
