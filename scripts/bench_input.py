"""Speed of the input pipeline, against bare JPEG decoding and a PyTorch DataLoader.

    python scripts/bench_input.py --json=input.json

All take the same 112x112 JPEG of about 5 kB with the same number of threads or workers:
    decode cv2, decode simplejpeg   libjpeg-turbo alone: the bytes are in memory, no result is kept
    pipeline                        TFRecord: read, decode, flip, batch, to the device; in as many
                                    processes, as data sets of 50,000 images or more are read
    pipeline in threads             the same in threads of one process
    pipeline without index          the same where a set has none of its images (others' sets)
    pipeline from LMDB, .tar.gz     the same images as others pack them, without converting them
    dataloader                      PyTorch: identity of work as above, by PIL, in processes
The turns are interleaved, since a shared machine's speed drifts; ratios are medians of those taken
turn by turn. The pipelines are measured as they run on, from the time when as many batches are in
work as there will be: in training that state lasts for days. PyTorch is optional: without it its
row is left out.
"""

import argparse
import gzip
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from bench_convert import archive, write_lmdb
from turns import write_json

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.lists import ListSource
from uniface_jax.data.sources.lmdb import LmdbSource
from uniface_jax.data.sources.synthetic import smooth_jpeg
from uniface_jax.data.sources.tar import TarSource
from uniface_jax.data.sources.tfrecord import TFRecordSource

CLASSES = 64
STARTING = 6  # batches, until all memory is taken and every queue is full


def make_data(folder: Path, images: int) -> tuple[Path, list[bytes]]:
    """Return a TFRecord data set of `images` different images, and their bytes in its order."""
    lines = []
    (folder / "jpeg").mkdir()
    for number in range(images):
        (folder / "jpeg" / f"{number}.jpg").write_bytes(smooth_jpeg(number))
        lines.append(f"jpeg/{number}.jpg {number % CLASSES}\n")
    (folder / "list.txt").write_text("".join(lines))
    write_dataset(ListSource(folder / "list.txt"), folder / "set", name="bench")
    source = TFRecordSource(folder / "set")
    return folder / "set", [source[i].image for i in range(images)]


def bare(decode: Callable, encoded: list, threads: int) -> Callable[[int], float]:
    """Seconds to decode `count` images in threads and throw the pixels away."""
    pool = ThreadPoolExecutor(threads)

    def part(start: int, count: int) -> None:
        for number in range(start, count, threads):
            decode(encoded[number % len(encoded)])

    def run(count: int) -> float:
        started = time.perf_counter()
        list(pool.map(part, range(threads), [count] * threads))
        return time.perf_counter() - started

    return run


def pipeline(source: Source, args: argparse.Namespace, decoders: str) -> Callable[[int], float]:
    """Seconds of the project's own, to one device."""
    import jax

    from uniface_jax.data.input.batches import DecoderPool, train_batches
    from uniface_jax.data.input.sampler import Sampler
    from uniface_jax.runtime.parallel import create_runner

    runner = create_runner("auto", {}, jax.devices()[:1])
    seeds = itertools.count()

    def run(count: int) -> float:
        batches = train_batches(
            source,
            Sampler(args.batch, seed=next(seeds)),
            decoders=DecoderPool(decoders, args.threads),
        )
        placed: list = []
        for number in range(STARTING + count // args.batch):
            if number == STARTING:
                started = time.perf_counter()
            batch = next(batches)
            placed = [*placed[-1:], runner.put({key: batch[key] for key in ("image", "label")})]
            del batch
        jax.block_until_ready(placed)
        seconds = time.perf_counter() - started
        batches.close()
        return seconds

    return run


class Faces:
    """What DataLoader asks of a data set."""

    def __init__(self, encoded: list[bytes], count: int):
        self.encoded, self.count = encoded, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple:
        import io
        import random

        import torch
        from PIL import Image, ImageOps

        image = Image.open(io.BytesIO(self.encoded[index % len(self.encoded)])).convert("RGB")
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        return torch.from_numpy(np.array(image)), index % CLASSES


def dataloader(encoded: list[bytes], args: argparse.Namespace) -> Callable[[int], float]:
    """Seconds of PyTorch's, its workers kept from turn to turn."""
    import torch

    loader = torch.utils.data.DataLoader(
        Faces(encoded, args.images * args.passes + STARTING * args.batch), args.batch, shuffle=True,
        num_workers=args.threads, persistent_workers=True, drop_last=True,
    )  # fmt: skip

    def run(count: int) -> float:
        batches = iter(loader)
        for number in range(STARTING + count // args.batch):
            if number == STARTING:
                started = time.perf_counter()
            next(batches)
        return time.perf_counter() - started

    run(args.images * args.passes)  # forks the workers now, before JAX has threads
    return run


def containers(folder: Path, encoded: list[bytes]) -> list[tuple[str, Source]]:
    """The images in other containers, which processes decode, as of all large sets."""

    def item(number: int) -> Item:
        return Item(encoded[number], number % CLASSES, str(number))

    write_lmdb(folder / "lmdb", item, len(encoded), CLASSES)
    packed = gzip.compress(archive(item, range(len(encoded))), 1)
    (folder / "set.tar.gz").write_bytes(packed)
    return [
        ("LMDB", LmdbSource(folder / "lmdb")),
        (".tar.gz", TarSource(folder / "set.tar.gz")),
    ]


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Images per second of each variant, turn by turn."""
    path, encoded = make_data(folder, args.images)
    cv2.setNumThreads(1)
    runs: dict[str, Callable[[int], float]] = {}
    if find_spec("torch"):
        runs["dataloader"] = dataloader(encoded, args)
    arrays = [np.frombuffer(image, np.uint8) for image in encoded]
    runs["decode cv2"] = bare(
        lambda image: cv2.imdecode(image, cv2.IMREAD_COLOR_RGB), arrays, args.threads
    )
    runs["decode simplejpeg"] = bare(simplejpeg.decode_jpeg, encoded, args.threads)
    runs["pipeline"] = pipeline(TFRecordSource(path), args, "processes")
    runs["pipeline in threads"] = pipeline(TFRecordSource(path), args, "threads")
    other = shutil.copytree(path, folder / "other")
    (other / IMAGE_INDEX_FILE).unlink()
    runs["pipeline without index"] = pipeline(TFRecordSource(other), args, "processes")
    for name, source in containers(folder, encoded):
        runs[f"pipeline from {name}"] = pipeline(source, args, "processes")
    count = args.images * args.passes // args.batch * args.batch
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.turns + 1):
        for name, run in runs.items():
            seconds = run(count)
            if turn:  # the first one warms up
                speeds[name].append(count / seconds)
    mean_bytes = statistics.mean(len(image) for image in encoded)
    return {"settings": vars(args), "image_bytes": mean_bytes, "images_per_second": speeds}


def summarize(report: dict, target: Path | None) -> None:
    """Adds medians and ratios, writes, prints; the bare decoder is the faster one of each turn."""
    speeds = report["images_per_second"]
    decoders = (speeds["decode cv2"], speeds["decode simplejpeg"])
    best = [max(pair) for pair in zip(*decoders, strict=True)]
    ours = speeds["pipeline"]
    report["pipeline_of_bare_decoding"] = _ratio(ours, best)
    if "dataloader" in speeds:
        report["pipeline_of_dataloader"] = _ratio(ours, speeds["dataloader"])
    write_json(target, report)
    for name in speeds:
        if name.startswith("pipeline from"):
            report[f"{name} of the converted"] = _ratio(speeds[name], ours)
    print(f"{report['image_bytes']:.0f} bytes an image, {report['settings']['threads']} threads")
    print(f"{'':24} {'images/s':>9} {'of bare decoding':>17}")
    for name, values in speeds.items():
        print(f"{name:24} {statistics.median(values):9.0f} {_ratio(values, best):17.0%}")
    for name in speeds:
        if name.startswith("pipeline from"):
            print(f"{name} is {report[f'{name} of the converted']:.0%} of the converted set's")
    if "dataloader" in speeds:
        print(f"pipeline is {report['pipeline_of_dataloader']:.2f} x the DataLoader")


def _ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096, help="different ones")
    parser.add_argument("--passes", type=int, default=4, help="over the images, in a turn")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    target = args.__dict__.pop("json")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(args, Path(folder))
    summarize(report, target)


if __name__ == "__main__":
    main()
