"""Sets of a million images as others pack them: converted, and read for training as they lie.

    python scripts/bench_containers.py --json=containers.json
    python scripts/bench_containers.py --images=lfw_112.tar --containers=lmdb,tar.gz --folder=sets

The same records (small JPEGs of real faces with --images, each with a comment of its own) are
written as LMDB, .tar and .tar.gz, and each is converted once. Then all are read as training reads
them, in a random order, decoded in processes: the converted set and the containers take turns, and
a ratio is the median of those taken turn by turn.

On a machine that others use, processor time says more than the clock: it is that of all processes,
and "2 cores" is what two of them reach at the most if nothing else runs. What gzip alone takes is
measured by unpacking the same archives, one after another.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_convert
import cv2
from turns import write_json

from uniface_jax.cli import say
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tar_members import unpack_gzip
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.synthetic import smooth_jpeg

DIFFERENT = 4096
STARTING = 6  # batches, until all memory is taken and every queue is full
TICKS = os.sysconf("SC_CLK_TCK")


def make_item(args: argparse.Namespace) -> Callable[[int], Item]:
    """Return the record of a number: one of DIFFERENT images, with the number in a comment."""
    faces = open_source(args.images) if args.images else None
    encoded = []
    for number in range(min(DIFFERENT, len(faces) if faces else DIFFERENT)):
        encoded_image = faces[number].image if faces else smooth_jpeg(number)
        image = images.decode(encoded_image, str(number))
        small = cv2.resize(image, (args.side, args.side), interpolation=cv2.INTER_AREA)
        encoded.append(images.encode_jpeg(small))

    def item(number: int) -> Item:
        jpeg = encoded[number % len(encoded)]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")
        return Item(jpeg[:2] + comment + jpeg[2:], number // bench_convert.A_CLASS, str(number))

    return item


def processor_seconds(root: int) -> float:
    """Return those of a process and of its descendants, ended ones that were waited for too."""
    try:
        fields = Path(f"/proc/{root}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except OSError:
        return 0.0  # it ended in between
    own = sum(map(int, fields[11:15])) / TICKS
    return own + sum(processor_seconds(int(child)) for child in children)


def converted(args: argparse.Namespace, container: str) -> dict:
    """Convert a container; return its speeds."""
    folder = args.folder / container
    conversion = bench_convert.command(
        folder, args.folder / f"{container}-converted", args.threads, shard_size=None
    )
    seconds, used, memory = bench_convert.timed_convert(conversion)
    row = {
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "convert seconds": seconds,
        "convert processor seconds": used,
        "highest memory MB": memory / 1e6,
    }
    if container == "tar.gz":
        begin = time.process_time()
        for file in sorted(folder.iterdir()):
            unpack_gzip(file)
        row["gzip alone processor seconds"] = time.process_time() - begin
    return row


def reading(source: Source, args: argparse.Namespace) -> Callable[[], tuple[float, float]]:
    """Return a turn: seconds by the clock and of processors for --turn_images of a source."""
    batches = args.turn_images // args.batch
    turns = iter(range(args.turns + 1))

    def turn() -> tuple[float, float]:
        read = train_batches(
            source,
            Sampler(args.batch, seed=next(turns)),
            image_size=args.side,
            decoders=DecoderPool("processes", args.threads),
        )
        batch = None
        for _ in range(STARTING):
            batch = next(read)
        begin, used = time.perf_counter(), processor_seconds(os.getpid())
        for _ in range(batches):
            batch = next(read)
        seconds = time.perf_counter() - begin
        used = processor_seconds(os.getpid()) - used
        del batch
        read.close()
        return seconds, used

    return turn


def read_in_turns(args: argparse.Namespace, paths: dict[str, Path]) -> dict[str, dict]:
    """Return what opening each set took, and its speeds by turns."""
    rows, runs = {}, {}
    for name, path in paths.items():
        begin, used = time.perf_counter(), time.process_time()
        source = open_source(path)
        opening = time.perf_counter() - begin, time.process_time() - used
        assert len(source) == args.records
        rows[name] = {"opening seconds": opening[0], "opening processor seconds": opening[1]}
        rows[name] |= {"images/s": [], "images/processor s": []}
        runs[name] = reading(source, args)
    count = args.turn_images // args.batch * args.batch
    for number in range(args.turns + 1):
        for name, run in runs.items():
            seconds, used = run()
            if number:  # the first turn brings the files into memory
                rows[name]["images/s"].append(count / seconds)
                rows[name]["images/processor s"].append(count / used)
    return rows


def ratio(speeds: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(speeds, others, strict=True))


def summarize(args: argparse.Namespace, conversions: dict[str, dict], reads: dict) -> dict:
    """Print both tables; return all numbers."""
    count, cores = args.records, args.threads
    say(f"{count:,} images of {args.side}x{args.side}, {reads['bytes an image']:.0f} bytes each")
    alone = f"on {cores} cores"
    say(f"{'converted':<12}{'records/s':>12}{alone:>12}{'but gzip':>12}{'MB held':>10}")
    for name, row in conversions.items():
        used = row["convert processor seconds"]
        row["records/s"] = count / row["convert seconds"]
        row["records/s on the cores alone"] = count / used * cores
        but = "-"
        if gzip_alone := row.get("gzip alone processor seconds"):
            row["records/s but gzip"] = count / (used - gzip_alone) * cores
            row["gzip alone of convert"] = gzip_alone / used
            but = f"{row['records/s but gzip']:,.0f}"
        say(
            f"{name:<12}{row['records/s']:>12,.0f}{row['records/s on the cores alone']:>12,.0f}"
            f"{but:>12}{row['highest memory MB']:>10.0f}"
        )
    say(f"{'read':<12}{'opens in':>12}{'images/s':>12}{alone:>12}{'of converted':>14}")
    ours = reads["converted"]
    for name, row in reads.items():
        if name == "bytes an image":
            continue
        for key in ("images/s", "images/processor s"):
            row[f"{key} of the converted"] = ratio(row[key], ours[key])
        say(
            f"{name:<12}{row['opening processor seconds']:>10.1f} s"
            f"{statistics.median(row['images/s']):>12,.0f}"
            f"{cores * statistics.median(row['images/processor s']):>12,.0f}"
            f"{row['images/processor s of the converted']:>14.1%}"
        )
    return {"settings": {k: str(v) for k, v in vars(args).items()}, "converted": conversions} | {
        "read": reads
    }


def measure(args: argparse.Namespace) -> None:
    """Write the sets that are not there yet, convert and read them; print and write the numbers."""
    item, containers = make_item(args), args.containers.split(",")
    size = statistics.mean(len(item(number).image) for number in range(DIFFERENT))
    conversions = {}
    for container in containers:
        begin = time.perf_counter()
        if not (args.folder / container).exists():
            bench_convert.write_set(args.folder / container, args.records, container, item)
            print(f"{container} written in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        conversions[container] = converted(args, container)
        if container != containers[0]:
            shutil.rmtree(args.folder / f"{container}-converted")
    paths = {"converted": args.folder / f"{containers[0]}-converted"}
    paths |= {container: args.folder / container for container in containers}
    reads = {"bytes an image": size, **read_in_turns(args, paths)}
    shutil.rmtree(paths["converted"])
    write_json(args.json, summarize(args, conversions, reads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--images", help="a source of images; smooth random ones by default")
    parser.add_argument("--side", type=int, default=40, help="of the images, pixels")
    parser.add_argument("--containers", default="lmdb,tar,tar.gz")
    parser.add_argument("--threads", type=int, default=2, help="processes that convert and decode")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--turn_images", type=int, default=50_000)
    parser.add_argument(
        "--folder", type=Path, help="of sets that stay, for another run; temporary by default"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.folder = args.folder or Path(temporary)
        measure(args)


if __name__ == "__main__":
    main()
