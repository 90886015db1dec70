"""Prints what `make demo` reached and where its files are: demo_summary.py WORKDIR."""

import argparse
import json
from pathlib import Path

from uniface_jax.checkpoints.reading import locate
from uniface_jax.evaluate.metrics.verification import base_rate
from uniface_jax.train.run_log import METRICS_FILE, duration


def main(workdir: Path) -> None:
    lines = [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]
    last = next(line for line in reversed(lines) if "loss" in line)
    evaluation = workdir / "evaluation"
    verification = json.loads((evaluation / "metrics.json").read_text())
    unseen = verification["protocols"]["verification"]["sets"]["orl"]
    accuracy = unseen["accuracy"]
    exported = json.loads((workdir / "export.json").read_text())
    strict = {point["far"]: point["strict"]["tar"] for point in unseen["tar_at_far"]}
    _, step = locate(workdir)
    rows = [
        ("steps trained", f"{step} in {duration(last['elapsed_seconds'])}"),
        ("unified threshold b/s", f"{last['threshold']:.4f}"),
        ("ROC-AUC, 10 unseen people", f"{unseen['auc']:.4f}"),
        *((f"TAR at FAR {far:g}", f"{tar:.4f}") for far, tar in strict.items()),
        ("10-fold accuracy", f"{accuracy['mean']:.4f} ± {accuracy['std']:.4f}"),
        ("  calling all different", f"{base_rate(unseen):.4f}"),
        ("ONNX against JAX", f"{max(exported['differences'].values()):.1e} relative"),
    ]
    width = max(len(name) for name, _ in rows)
    print("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in rows))
    print("\nfiles:")
    files = [workdir / "model.onnx", evaluation / "report.html", evaluation / "metrics.json"]
    for path in files:
        print(f"  {path}")
    print(f"  {workdir / 'tensorboard'}  (tensorboard --logdir {workdir})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    main(parser.parse_args().workdir)
