"""Features of LFW by an imported network, next to onnxruntime with our own export of it.

    python scripts/bench_lfw.py --data=lfw_112.tar [--images=512] [--turns=5] [--json=lfw.json]

Weights by PyTorch's names become a workdir by import_weights, and that an ONNX file by export.
Both are loaded as evaluate loads a model, and run over the same encoded images in the same way,
decoding and mirror sum included; each in a process of its own, taking turns. What counts is the
median of the ratios, taken turn by turn, of images a second.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from turns import Worker, interleave, ratios, serve, spread, write_json

from uniface_jax.cli import say

ALLOWED_RATIO, ALLOWED_COSINE = 1.0, 0.99999
VARIANTS = {"ours": "workdir", "onnxruntime": "model.onnx"}


def write_models(network_name: str, folder: Path) -> None:
    """Write workdir and model.onnx, by the command lines."""
    import jax
    from bench_onnx import trained_looking

    from uniface_jax import models
    from uniface_jax.weights.names import to_state

    network = models.create(network_name)
    shapes = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    params, batch_stats = jax.tree_util.tree_map_with_path(trained_looking, shapes)
    weights, workdir = folder / "weights.npz", folder / "workdir"
    np.savez(weights, **to_state(network, {"params": params, "batch_stats": batch_stats}))
    output = folder / "model.onnx"
    for arguments in (
        ["import_weights", str(weights), str(workdir)],
        ["export", f"--workdir={workdir}", f"--output={output}"],
    ):
        command = [sys.executable, "-m", f"uniface_jax.{arguments[0]}", *arguments[1:]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def embedded(args: argparse.Namespace, about: dict) -> Callable[[], None]:
    """Return the run of a variant: features of all images, kept beside its model."""
    from uniface_jax.data.sources.photographs import open_images
    from uniface_jax.inference.extract import extract
    from uniface_jax.inference.load import load_model

    source = open_images(args.data)
    images = [source[i].image for i in range(min(args.images, len(source)))]
    model = load_model(args.folder / VARIANTS[args.variant], mirror=True)
    about["images"] = len(images)

    def run() -> None:
        features = extract(model.embed, images, name="lfw", progress=False)
        np.save(args.folder / f"{args.variant}.npy", features)

    return run


def lowest_cosine(folder: Path) -> float:
    """Return the lowest cosine of an image's two features."""
    ours, theirs = (np.load(folder / f"{name}.npy").astype(np.float64) for name in VARIANTS)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).min())


def measure(args: argparse.Namespace, folder: Path) -> dict:
    write_models(args.network, folder)
    given = [f"--folder={folder}", f"--data={args.data}", f"--images={args.images}"]
    workers = [Worker(__file__, name, given) for name in VARIANTS]
    interleave(workers, args.turns)
    for worker in workers:
        worker.end()
        if worker.failed:
            raise SystemExit(f"{worker.name} failed: {worker.failed}")
    count = int(workers[0].values("images")[0])
    return {
        "network": args.network,
        "images": count,
        "images_per_second": {w.name: count / w.median() for w in workers},
        "cpu_seconds": {w.name: w.median("cpu_seconds") for w in workers},
        "ratio": ratios(*workers),
        "lowest_cosine": lowest_cosine(folder),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="aligned images: a folder or .tar")
    parser.add_argument("--network", default="lresnet50")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        about: dict[str, float] = {}
        serve(lambda job: embedded(args, about), about=about)
        return 0
    with tempfile.TemporaryDirectory() as name:
        result = measure(args, Path(name))
    write_json(args.json, result)
    say(f"{result['network']}, {result['images']} images, mirror sum, {args.turns} turns")
    for name in VARIANTS:
        rate, seconds = result["images_per_second"][name], result["cpu_seconds"][name]
        say(f"{name:12} {rate:7.1f} images/s {seconds:8.1f} s of processor")
    say(f"ratio {spread(result['ratio'])}, lowest cosine of both {result['lowest_cosine']:.7f}")
    passed = result["ratio"]["median"] >= ALLOWED_RATIO
    passed = passed and result["lowest_cosine"] >= ALLOWED_COSINE
    say("passed" if passed else "not passed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
