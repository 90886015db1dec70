"""Times our ONNX export of a network against PyTorch's own export of the same weights, on the CPU.

python scripts/bench_onnx.py [--network mbf] [--rounds 15] [--json bench_onnx.json]

Needs PyTorch and its ONNX exporter: pip install torch onnxscript. Both graphs take [batch, 3, 112,
112] and give f(x) + f(mirrored x). Rounds are interleaved, so that a machine whose speed drifts
slows both alike; what counts is the median of the ratios.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

BATCHES = (1, 32)
# Runs in a row, of which the fastest counts. A single image takes no longer than what disturbs it:
# the other session's threads, which spin for a while after their last run, among others.
REPEATS = {1: 6, 32: 1}
# Nodes of our graph; of another network no more than PyTorch's has.
NODES_ALLOWED, RATIO_ALLOWED = {"lresnet50": 140, "iresnet50": 140}, 1.0
RANDOM = np.random.default_rng(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="lresnet50", choices=["lresnet50", "iresnet50", "mbf"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ours(arguments.network, folder)
        command = [arguments.torch_python, Path(__file__).with_name("bench_onnx_torch.py"), folder]
        subprocess.run(command, check=True)
        result = measure(folder, arguments.network, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return 0 if result["passed"] else 1


def show(result: dict) -> None:
    print(f"{result['network']}, onnxruntime {result['onnxruntime']}, {result['rounds']} rounds")
    print(
        f"{'batch':>5} {'ours ms':>9} {'PyTorch ms':>10} {'ratio':>7} {'quarters':>15} {'apart':>7}"
    )
    for batch, row in result["batches"].items():
        low, high = row["ratio_quartiles"]
        print(
            f"{batch:5} {row['milliseconds']['ours']:9.2f} {row['milliseconds']['torch']:10.2f}"
            f" {row['ratio']:7.4f} {low:7.4f} {high:7.4f} {row['difference']:7.1e}"
        )
    for key, operations in result["operations"].items():
        print(f"{key}: {result['nodes'][key]} nodes, {operations.get('Transpose', 0)} transposes")
    print("passed" if result["passed"] else "not passed")


def write_ours(name: str, folder: Path) -> None:
    """ours.onnx, and the same weights by PyTorch's names in weights.npz."""
    import jax

    from uniface_jax import models
    from uniface_jax.export.onnx.from_jaxpr import to_onnx
    from uniface_jax.weights.names import to_state

    network = models.create(name)
    shapes = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    params, batch_stats = jax.tree_util.tree_map_with_path(trained_looking, shapes)
    variables = {"params": params, "batch_stats": batch_stats}
    model = to_onnx(lambda images: network.apply(variables, images, train=False))
    onnx.save(model, folder / "ours.onnx")
    np.savez(folder / "weights.npz", **to_state(network, variables))


def trained_looking(path, leaf, rng=RANDOM) -> np.ndarray:
    """Random weights of unit gain, and statistics unlike 0 and 1."""
    kind = path[-1].key
    if kind == "kernel":
        values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    elif kind in ("var", "scale"):
        values = rng.uniform(0.6, 1.2, leaf.shape)
    else:
        values = rng.normal(0, 0.2, leaf.shape)
    return values.astype(np.float32)


def measure(folder: Path, network: str, rounds: int) -> dict:
    files = {"ours": folder / "ours.onnx", "torch": folder / "torch.onnx"}
    sessions = {
        key: onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for key, file in files.items()
    }
    nodes = {
        key: [node.op_type for node in onnx.load(file).graph.node] for key, file in files.items()
    }
    images = np.random.default_rng(1).uniform(-1, 1, (max(BATCHES), 3, 112, 112)).astype(np.float32)
    batches = {}
    for batch in BATCHES:
        feeds = {key: {s.get_inputs()[0].name: images[:batch]} for key, s in sessions.items()}
        # Also the warm-up.
        features = {key: s.run(None, feeds[key])[0] for key, s in sessions.items()}
        times: dict[str, list[float]] = {key: [] for key in sessions}
        for turn in range(rounds):
            for key in list(sessions) if turn % 2 else list(sessions)[::-1]:
                seconds = []
                for _ in range(REPEATS[batch]):
                    start = time.perf_counter()
                    sessions[key].run(None, feeds[key])
                    seconds.append(time.perf_counter() - start)
                times[key].append(min(seconds))
        ratios = np.array(times["ours"]) / np.array(times["torch"])
        difference = np.abs(features["ours"] - features["torch"]).max()
        batches[batch] = {
            "ratio": round(float(np.median(ratios)), 4),
            "ratio_quartiles": [round(float(q), 4) for q in np.quantile(ratios, (0.25, 0.75))],
            "milliseconds": {k: round(float(np.median(v)) * 1e3, 2) for k, v in times.items()},
            "difference": float(difference / np.abs(features["torch"]).max()),
        }
    passed = (
        all(entry["ratio"] <= RATIO_ALLOWED for entry in batches.values())
        and all(entry["difference"] <= 1e-5 for entry in batches.values())
        and len(nodes["ours"]) <= NODES_ALLOWED.get(network, len(nodes["torch"]))
        and nodes["ours"].count("Transpose") <= 2
    )
    return {
        "passed": passed,
        "network": network,
        "batches": batches,
        "nodes": {key: len(found) for key, found in nodes.items()},
        "operations": {key: dict(Counter(found)) for key, found in nodes.items()},
        "onnxruntime": onnxruntime.__version__,
        "rounds": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
