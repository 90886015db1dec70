"""Speed and memory of the all-pairs engine, and what 1.6 million images would take.

    python scripts/bench_pairs.py --images=25000,50000,100000 --json=pairs.json

At each size the engine runs in a process of its own; before and after it, in the same process, a
plain product of the machine is timed, and shares are of the mean of both. At the largest size the
engine is compared with numpy: the product of a block of rows with all later ones and a partition
that keeps the k largest (on `--numpy-rows` of the rows, spread evenly, scaled up by the pairs
done). The extrapolation is arithmetic from the fitted growth and from the devices' data sheets.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIDE = 2048
MFR_IMAGES = 1_624_305
H100_FLOPS, GPU_SHARE = 67e12, 0.5  # float32 without tensor cores by the data sheet; assumed share


def features_and_labels(images: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, max(2, images // 7), images)
    features = rng.standard_normal((images, dim), np.float32)
    for start in range(0, images, 10_000):
        part = features[start : start + 10_000]
        for row, label in enumerate(labels[start : start + 10_000]):
            part[row] += np.random.default_rng(label).standard_normal(dim, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return features, labels


def plain_rate(seconds: float = 4.0) -> float:
    """FLOP/s of a plain product, the median over some seconds."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        product(square, square).block_until_ready()
        times.append(time.perf_counter() - started)
    return 2 * SIDE**3 / float(np.median(times))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def engine(images: int, dim: int, fars: list[float]) -> dict:
    from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs, all_pairs_metrics
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures, Tiling

    features, labels = features_and_labels(images, dim)
    # Compiles, for blocks of the size that a GPU has too.
    options = {"targets": Targets(fars), "tiling": Tiling(normalized=True)}
    all_pairs(LabeledFeatures(features[:20_000], labels[:20_000]), **options)
    rates = [plain_rate()]
    before = peak()
    started = time.perf_counter()
    result = all_pairs(LabeledFeatures(features, labels), **options)
    seconds = time.perf_counter() - started
    rates.append(plain_rate())
    pairs = images * (images - 1) // 2
    return {
        "images": images,
        "seconds": seconds,
        "passes": result.passes,
        "gflops": 2 * pairs * dim / seconds / 1e9,
        "plain_gflops": [rate / 1e9 for rate in rates],
        "share_of_plain": 2 * pairs * dim / seconds / (sum(rates) / 2),
        "features_bytes": features.nbytes,
        "added_bytes": peak() - before,
        "metrics": all_pairs_metrics(result),
    }


def by_numpy(images: int, dim: int, fars: list[float], rows: int, block: int = 512) -> dict:
    """Products and partitions by blocks of rows; no bound, no mask beyond the labels'."""
    features, labels = features_and_labels(images, dim)
    keep = int(max(fars) * images * (images - 1) / 2) + 1
    kept = np.empty(0, np.float32)
    starts = np.linspace(0, images - block, max(1, rows // block)).astype(int)
    done, started = 0, time.perf_counter()
    for start in starts:
        chosen = slice(start, start + block)
        scores = features[chosen] @ features[start:].T
        later = np.arange(start, images)[None] > np.arange(start, start + block)[:, None]
        done += int(later.sum())
        later &= labels[chosen, None] != labels[None, start:]
        kept = np.concatenate([kept, scores[later]])
        if len(kept) > keep:
            kept = np.partition(kept, len(kept) - keep)[len(kept) - keep :]
    measured = time.perf_counter() - started
    pairs = images * (images - 1) // 2
    return {"seconds": measured / done * pairs, "measured_seconds": measured, "pairs_done": done}


def in_process(arguments: list[str], part: str, images: int) -> dict:
    command = [sys.executable, __file__, *arguments, f"--part={part}", f"--part-images={images}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def extrapolated(rows: list[dict], dim: int) -> dict:
    """Arithmetic, not a measurement."""
    images, seconds = (np.array([row[key] for row in rows]) for key in ("images", "seconds"))
    # Least squares of the relative error of a + b n^2: what is fixed, and the products.
    design = np.stack([1 / seconds, images.astype(float) ** 2 / seconds], axis=1)
    fixed, square = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    exponent = np.polyfit(np.log(images), np.log(seconds), 1)[0] if len(rows) > 1 else None
    gpu = MFR_IMAGES**2 * dim / (H100_FLOPS * GPU_SHARE)
    return {
        "images": MFR_IMAGES,
        "growth_exponent": exponent,
        "fixed_seconds": fixed,
        "seconds_per_square_image": square,
        "cpu_hours": (fixed + square * MFR_IMAGES**2) / 3600,
        "one_gpu_seconds": gpu,
        "eight_gpu_seconds": gpu / 8,
    }


def show(report: dict) -> None:
    print(f"{'images':>9} {'seconds':>8} {'GFLOP/s':>8} {'plain':>7} {'share':>6} {'added MB':>9}")
    for row in report["engine"]:
        print(
            f"{row['images']:>9,} {row['seconds']:>8.1f} {row['gflops']:>8.0f} "
            f"{np.mean(row['plain_gflops']):>7.0f} {row['share_of_plain']:>6.2f} "
            f"{row['added_bytes'] / 1e6:>9.0f}"
        )
    if "numpy" in report:
        print(
            f"numpy, product and partition by blocks: {report['numpy']['seconds']:.0f} s "
            f"(scaled from {report['numpy']['measured_seconds']:.0f} s), "
            f"{report['times_numpy']:.1f} times the engine's"
        )
    far = report["extrapolated"]
    print(
        f"growth: images^{far['growth_exponent'] or 2:.2f}; arithmetic, {far['images']:,} images: "
        f"{far['cpu_hours']:.1f} h on this CPU; at {GPU_SHARE:.0%} of {H100_FLOPS / 1e12:.0f} "
        f"TFLOP/s: {far['one_gpu_seconds']:.0f} s on one GPU, "
        f"{far['eight_gpu_seconds']:.0f} s on eight"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="25000,50000,100000", help="sizes, rising")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--fars", default="1e-6")
    parser.add_argument("--numpy-rows", type=int, default=4096, help="0: without numpy")
    parser.add_argument("--json")
    parser.add_argument("--part", choices=["engine", "numpy"], help=argparse.SUPPRESS)
    parser.add_argument("--part-images", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    fars = [float(far) for far in args.fars.split(",")]
    if args.part == "engine":
        print(json.dumps(engine(args.part_images, args.dim, fars)))
        return
    if args.part == "numpy":
        print(json.dumps(by_numpy(args.part_images, args.dim, fars, args.numpy_rows)))
        return
    passed_on = [f"--dim={args.dim}", f"--fars={args.fars}", f"--numpy-rows={args.numpy_rows}"]
    sizes = [int(size) for size in args.images.split(",")]
    rows = [in_process(passed_on, "engine", size) for size in sizes]
    report: dict = {"settings": vars(args), "engine": rows}
    if args.numpy_rows:
        report["numpy"] = in_process(passed_on, "numpy", sizes[-1])
        report["times_numpy"] = report["numpy"]["seconds"] / rows[-1]["seconds"]
    report["extrapolated"] = extrapolated(rows, args.dim)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2))
    show(report)


if __name__ == "__main__":
    main()
