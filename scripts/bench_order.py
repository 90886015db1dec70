"""Cost of the orders of an epoch beside the plain one: time to make, memory, records a second.

    python scripts/bench_order.py --images=42474558 --classes=2059906

The set is synthetic:CLASSES:IMAGES, whose classes take no reading. Each order is made in a process
of its own, whose largest memory is compared with that of the plain order.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

from uniface_jax.data.input.balance import class_order
from uniface_jax.data.input.label_noise import NoisyLabels
from uniface_jax.data.input.order import Order
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.synthetic import SyntheticSource

ORDERS = ("plain", "ratios", "classes", "square_root", "cap", "plain, noisy labels")
STEPS = 1024  # of 512 images, in blocks as training asks for them
BATCH, TURNS = 512, 5


def make(name: str, source: SyntheticSource) -> Order | None:
    """Return an order by its name."""
    images = len(source)
    if name == "ratios":
        return Order.of_groups([images // 2, images - images // 2], [images // 2, 2 * images])
    if name in ("classes", "square_root"):
        return class_order(source, [(images, 1.0)], name, None)
    if name == "cap":
        return class_order(source, [(images, 1.0)], "none", 10)
    return None


def measure(name: str, images: int, classes: int) -> None:
    """Print one row."""
    source = SyntheticSource(classes, images)
    before, began = _peak(), time.perf_counter()
    order = make(name, source)
    made, memory = time.perf_counter() - began, _peak() - before
    noisy = NoisyLabels(source, 0.1, 0) if "noisy" in name else None
    stream = Sampler(BATCH, 0, order=order).stream(0, images, 1)
    speeds = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(STEPS):
            records, _ = next(stream)
            if noisy:
                noisy.classes(records)
        speeds.append(STEPS * BATCH / (time.perf_counter() - began))
    speed = statistics.median(speeds)
    print(
        f"{name:20} {made:8.1f} {memory / 2**20:8.0f} {speed:12,.0f} {1e6 / speed:9.2f}", flush=True
    )


def _peak() -> int:
    """Return the most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=42_474_558)
    parser.add_argument("--classes", type=int, default=2_059_906)
    parser.add_argument("--order", choices=ORDERS, help="this one alone, in this process")
    args = parser.parse_args()
    if args.order:
        measure(args.order, args.images, args.classes)
        return
    print(f"{args.images:,} images of {args.classes:,} classes")
    print(f"{'order':20} {'made, s':>8} {'MiB':>8} {'records/s':>12} {'us each':>9}", flush=True)
    for name in ORDERS:
        sizes = [f"--images={args.images}", f"--classes={args.classes}", f"--order={name}"]
        subprocess.run([sys.executable, __file__, *sizes], check=True)


if __name__ == "__main__":
    main()
