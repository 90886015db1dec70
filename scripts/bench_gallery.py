"""Times searches of a gallery: ours by int8 codes and by float32, NumPy's product, FAISS's.

python scripts/bench_gallery.py [--rows=1000000] [--width=512] [--queries=100] [--json=FILE]

Features are noise around people's own directions, 4 rows each; a query is a row with noise.
Every search runs in a process of its own, on features that are in the page cache; rounds are
interleaved, and the median counts. `right` is the share of queries whose ids, in their order,
are those of a product in float64; `MB` is the resident memory beyond the mapped float32 file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

NEIGHBORS, ROWS_A_PERSON, NOISE = 5, 4, 0.8
BLOCK = 1 << 14
METHODS = ("int8", "float32", "numpy", "faiss_flat", "faiss_hnsw")
ALLOWED_RATIO, ALLOWED_MEGABYTES = 4.0, 1200.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default="int8,float32,numpy,faiss_flat")
    parser.add_argument("--folder", type=Path, help="keep the gallery here, or take the one there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        prepare(folder, arguments)
        result = compare(folder, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return show(result)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Build the gallery, the queries, and the answers of float64, unless they are there."""
    from uniface_jax.gallery.store import Gallery

    if (folder / "truth.npz").exists():
        return
    begun = time.monotonic()
    gallery = Gallery.create(folder / "gallery", arguments.width)
    gallery.add(blocks(arguments.rows, arguments.width), arguments.rows)
    print(f"built in {time.monotonic() - begun:.1f} s", flush=True)
    (features,) = [segment.features for segment in gallery.segments]
    random = np.random.default_rng(1)
    rows = random.integers(0, arguments.rows, arguments.queries)
    spread = NOISE * random.standard_normal((len(rows), arguments.width))
    queries = (features[rows] + spread).astype(np.float32)
    ids, cosines = truth(features, queries)
    np.savez(folder / "truth.npz", queries=queries, ids=ids, cosines=cosines)


def blocks(count: int, width: int) -> Iterator:
    """Yield rows of a gallery, the same for the same sizes."""
    from uniface_jax.gallery.rows import plain_rows

    random = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        people = random.standard_normal((-(-size // ROWS_A_PERSON), width), dtype=np.float32)
        features = np.repeat(people, ROWS_A_PERSON, axis=0)[:size]
        features += NOISE * random.standard_normal(features.shape, dtype=np.float32)
        yield plain_rows(features, [f"{i:08}.jpg" for i in range(start, start + size)])


def truth(features: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest ids and cosines by products in float64, a tile at a time."""
    units = queries.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    ids, cosines = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0))
    for start in range(0, len(features), BLOCK):
        rows = np.asarray(features[start : start + BLOCK], np.float64)
        tile = units @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
        numbers = np.broadcast_to(np.arange(start, start + len(rows)), tile.shape)
        ids, cosines = np.hstack([ids, numbers]), np.hstack([cosines, tile])
        order = np.lexsort((ids, -cosines), axis=1)[:, :NEIGHBORS]
        ids = np.take_along_axis(ids, order, 1)
        cosines = np.take_along_axis(cosines, order, 1)
    return ids, cosines


def compare(folder: Path, arguments: argparse.Namespace) -> dict:
    """Measure each method in processes of its own, in turn."""
    methods = arguments.methods.split(",")
    runs: dict[str, list[dict]] = {method: [] for method in methods}
    for _ in range(arguments.rounds):
        for method in methods:
            command = [sys.executable, __file__, f"--one={method}", f"--folder={folder}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{method}: not measured: {done.stderr.strip().splitlines()[-1]}")
                break
            runs[method].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {}
    for method, found in runs.items():
        if found:
            seconds = [run["seconds"] for run in found]
            rows[method] = {**found[0], "seconds": statistics.median(seconds), "all": seconds}
    sizes = {"rows": arguments.rows, "width": arguments.width, "queries": arguments.queries}
    return {**sizes, "neighbors": NEIGHBORS, "methods": rows}


def measure(method: str, folder: Path) -> dict:
    """Search once to warm up and then three times; the fastest counts."""
    with np.load(folder / "truth.npz") as file:
        queries, ids = file["queries"], file["ids"]
    search = SEARCHES[method](folder)
    found = search(queries)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        found = search(queries)
        times.append(time.perf_counter() - begun)
    return {
        "seconds": min(times),
        "right": float((found == ids).all(1).mean()),
        "recall": recall(found, ids),
        "megabytes": resident_megabytes(".features"),
    }


def recall(found: np.ndarray, ids: np.ndarray) -> float:
    """Return the share of the true neighbors that were found, in whatever order."""
    shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), ids.tolist(), strict=True)]
    return float(np.mean(shared)) / NEIGHBORS


def resident_megabytes(without: str) -> float:
    """Return the resident memory of this process, less that of mapped files of such a name."""
    total = left_out = 0
    counted = True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            counted = not line.endswith(without)
        elif first == "Rss:":
            size = int(line.split()[1])
            total, left_out = total + size, left_out + (0 if counted else size)
    return (total - left_out) / 1024


Search = Callable[[np.ndarray], np.ndarray]


def ours(method: str) -> Callable[[Path], Search]:
    def opened(folder: Path) -> Search:
        from uniface_jax.gallery.store import Gallery

        gallery = Gallery(folder / "gallery")
        return lambda queries: gallery.search(queries, NEIGHBORS, method).ids

    return opened


def normalized(folder: Path) -> np.ndarray:
    from uniface_jax.gallery.store import Gallery

    (segment,) = Gallery(folder / "gallery").segments
    features = np.array(segment.features)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def by_numpy(folder: Path) -> Search:
    features = normalized(folder)

    def search(queries: np.ndarray) -> np.ndarray:
        cosines = queries @ features.T
        near = np.argpartition(cosines, -NEIGHBORS, axis=1)[:, -NEIGHBORS:]
        order = np.argsort(-np.take_along_axis(cosines, near, 1), axis=1)
        return np.take_along_axis(near, order, 1)

    return search


def by_faiss(kind: str) -> Callable[[Path], Search]:
    def opened(folder: Path) -> Search:
        import faiss

        features = normalized(folder)
        width = features.shape[1]
        inner = faiss.METRIC_INNER_PRODUCT
        index = (
            faiss.IndexFlatIP(width) if kind == "flat" else faiss.IndexHNSWFlat(width, 32, inner)
        )
        if kind != "flat":
            index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
        index.add(features)
        del features
        return lambda queries: index.search(queries, NEIGHBORS)[1]

    return opened


SEARCHES: dict[str, Callable[[Path], Search]] = {
    "int8": ours("int8"),
    "float32": ours("float32"),
    "numpy": by_numpy,
    "faiss_flat": by_faiss("flat"),
    "faiss_hnsw": by_faiss("hnsw"),
}


def show(result: dict) -> int:
    print(f"{result['rows']} x {result['width']}, {result['queries']} queries, k={NEIGHBORS}")
    print(f"{'method':12} {'seconds':>8} {'right':>6} {'recall':>7} {'MB':>7}")
    for method, row in result["methods"].items():
        print(
            f"{method:12} {row['seconds']:8.3f} {row['right']:6.2f} {row['recall']:7.3f} "
            f"{row['megabytes']:7.0f}"
        )
    mine, numpy = result["methods"].get("int8"), result["methods"].get("numpy")
    if not mine or not numpy:
        return 0
    ratio = numpy["seconds"] / mine["seconds"]
    passed = (
        ratio >= ALLOWED_RATIO and mine["right"] == 1 and mine["megabytes"] <= ALLOWED_MEGABYTES
    )
    print(f"int8 is {ratio:.1f} times as fast as NumPy: {'passed' if passed else 'not passed'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
