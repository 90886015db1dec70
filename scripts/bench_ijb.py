"""Times IJB-C, 1:1 and 1:N, from given features, and its peak memory; on a directory of full size.

python scripts/bench_ijb.py [--folder=FOLDER] [--scale=1] [--json=FILE]

Makes the directory with make_synthetic_ijbc.py unless it is there, and runs the command line as a
user does, with two threads. Beside it, the steps that insightface's script does in the same way,
a Python loop over templates and numpy.loadtxt's default reading of the pairs, each on a part of the
data and scaled up, since they would take minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from make_synthetic_ijbc import make

from uniface_jax.evaluate.protocols.ijb.images import read_images, read_template_pairs
from uniface_jax.evaluate.protocols.ijb.templates import template_features
from uniface_jax.files.atomic import write_bytes

SECONDS_ALLOWED, GIGABYTES_ALLOWED = 360, 6.0
_SOME_LINES, _SOME_TEMPLATES = 400_000, 1_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/synthetic_ijbc"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder
    if not (folder / "features.npy").is_file():
        make(folder, arguments.scale)
    result = {**whole(folder), "parts": parts(folder)}
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(result, indent=1) + "\n").encode())
    print(f"{'step':34}{'here':>10}{'plain loop':>13}{'ratio':>8}")
    for name, (here, plain) in result["parts"].items():
        print(f"{name:34}{here:9.2f}s{plain:12.2f}s{plain / here:8.1f}")
    print(
        f"whole evaluation, 1:1 and 1:N: {result['seconds']:.1f} s "
        f"(allowed {SECONDS_ALLOWED}), peak memory {result['gigabytes']:.2f} GB "
        f"(allowed {GIGABYTES_ALLOWED:g})"
    )
    return 0 if result["passed"] else 1


def whole(folder: Path) -> dict:
    """Return the command line in a process of its own."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "uniface_jax.evaluate", "--protocol=ijb", f"--data={folder}",
            f"--embeddings={folder / 'features.npy'}", f"--output={output}",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    passed = seconds <= SECONDS_ALLOWED and gigabytes <= GIGABYTES_ALLOWED
    return {
        "passed": passed,
        "seconds": seconds,
        "gigabytes": gigabytes,
        "cores": os.cpu_count(),
    }


def parts(folder: Path) -> dict[str, tuple[float, float]]:
    """(seconds here, seconds of the plain loop) of the steps that are done otherwise here."""
    pair_file = folder / "meta/ijbc_template_pair_label.txt"
    start = time.perf_counter()
    pairs = len(read_template_pairs(pair_file).same)
    reading = time.perf_counter() - start
    with pair_file.open() as file:
        some = [line for line, _ in zip(file, range(_SOME_LINES), strict=False)]
    start = time.perf_counter()
    np.array([[int(x) for x in line.split()] for line in some])
    plain_reading = (time.perf_counter() - start) * pairs / len(some)

    images = read_images(
        folder / "meta/ijbc_face_tid_mid.txt", folder / "meta/ijbc_name_5pts_score.txt"
    )
    features = np.load(folder / "features.npy", mmap_mode="r")
    start = time.perf_counter()
    ids, _ = template_features(features, images.templates, images.media, images.scores)
    summing = time.perf_counter() - start
    start = time.perf_counter()
    chosen = ids[:: max(1, len(ids) // _SOME_TEMPLATES)]
    for template in chosen:
        (rows,) = np.where(images.templates == template)
        weighed = features[rows] * images.scores[rows, None]
        media = images.media[rows]
        means = [weighed[media == medium].mean(axis=0) for medium in np.unique(media)]
        np.sum(means, axis=0)
    plain_summing = (time.perf_counter() - start) * len(ids) / len(chosen)
    return {
        f"reading {pairs:,} pairs": (reading, plain_reading),
        f"summing {len(ids):,} templates": (summing, plain_summing),
    }


if __name__ == "__main__":
    sys.exit(main())
