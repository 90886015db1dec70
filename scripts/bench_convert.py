"""Speed, memory and safety of convert: a set of a million small images, against `cp`.

    python scripts/bench_convert.py --json=convert.json
    python scripts/bench_convert.py --container=lmdb     # or tar, or tar.gz
    python scripts/bench_convert.py --rounds=0 --keep    # makes the set alone, for a run after it

Writes the set as RecordIO with the package's own writer (which the tests hold against files of
MXNet, byte for byte), or in another container, copies it and converts it in turn, since a shared
machine's speed drifts, and reports records a second, the ratio to cp and the highest memory of all
processes together. Then it converts again and kills the command with SIGKILL at --kills random
moments, alternately the main process alone and all of its processes, resumes it each time, and
compares the result with the undisturbed one.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgpack
import numpy as np

from uniface_jax.cli import say
from uniface_jax.data.conversion.recordio_writer import write_insightface
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tar_members import unpack_gzip
from uniface_jax.data.sources.base import Item

DIFFERENT, SIDE, A_CLASS = 512, 40, 50
SHARD = 10_000  # images in an archive
POLL = 0.05


def make_item() -> Callable[[int], Item]:
    """Different JPEGs by number: a few hundred patterns, each time with a comment of its own."""
    rng = np.random.default_rng(0)
    patterns = []
    for _ in range(DIFFERENT):
        small = rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
        patterns.append(images.encode_jpeg(np.kron(small, np.ones((4, 4, 1), np.uint8))))

    def item(number: int) -> Item:
        jpeg = patterns[number % DIFFERENT]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")
        return Item(jpeg[:2] + comment + jpeg[2:], number // A_CLASS, str(number))

    return item


def write_set(folder: Path, records: int, container: str, item: Callable[[int], Item]) -> None:
    """`records` different JPEGs in a container."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if container == "recordio":
        write_insightface(unfinished, map(item, range(records)), records, (SIDE, SIDE))
    elif container == "lmdb":
        write_lmdb(unfinished, item, records, -(-records // A_CLASS))
    else:
        unfinished.mkdir(parents=True)
        for shard, begin in enumerate(range(0, records, SHARD)):
            content = archive(item, range(begin, min(begin + SHARD, records)))
            packed = gzip.compress(content, 1) if container == "tar.gz" else content
            (unfinished / f"shard-{shard:04d}.{container}").write_bytes(packed)
    unfinished.rename(folder)


def write_lmdb(folder: Path, item: Callable[[int], Item], records: int, classes: int) -> None:
    """A folder that LMDB itself writes, in HaiyuWu's layout."""
    folder.mkdir(parents=True)
    opened = lmdb.open(str(folder), map_size=1 << 40, sync=False)
    for begin in range(0, records, SHARD):
        with opened.begin(write=True) as transaction:
            for number in range(begin, min(begin + SHARD, records)):
                image, label, name = item(number)
                transaction.put(name.encode(), msgpack.packb((image, label)))
    own = {
        b"__keys__": [b"%d" % number for number in range(records)],
        b"__len__": records,
        b"__classnum__": classes,
    }
    with opened.begin(write=True) as transaction:
        for key, value in own.items():
            transaction.put(key, msgpack.packb(value))
    opened.sync(True)
    opened.close()


def archive(item: Callable[[int], Item], numbers: range) -> bytes:
    """A tar of KEY.jpg and KEY.cls."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image, label, name in map(item, numbers):
            for member, data in ((f"{name:0>9}.jpg", image), (f"{name:0>9}.cls", b"%d" % label)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def resident(root: int) -> int:
    """Bytes of memory that the process `root` and its descendants hold."""
    total = 0
    try:
        status = Path(f"/proc/{root}/status").read_text()
        total += 1024 * int(status.split("VmRSS:")[1].split()[0])
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except (OSError, IndexError):
        return total  # it ended in between
    return total + sum(resident(int(child)) for child in children)


def set_folder(args: argparse.Namespace) -> Path:
    """Return the folder of the set to convert."""
    kind = "" if args.container == "recordio" else f"-{args.container}"
    return args.folder / f"set{kind}-{args.records}"


def command(source: Path, destination: Path, workers: int, shard_size: int | None) -> list[str]:
    """Return the command that converts a set."""
    flags = [f"--workers={workers}", *([f"--shard_size={shard_size}"] if shard_size else [])]
    return [sys.executable, "-m", "uniface_jax.convert", str(source), str(destination), *flags]


def start(conversion: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        conversion,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def processor_seconds() -> float:
    """Return those of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed_convert(conversion: list[str]) -> tuple[float, float, int]:
    """Seconds of one conversion by the clock and of all processors, and its highest memory.

    Start, metadata and statistics are included; memory in bytes.
    """
    os.sync()  # what others have left to be written is theirs
    begin, used, highest = time.perf_counter(), processor_seconds(), 0
    process = start(conversion)
    while process.poll() is None:
        highest = max(highest, resident(process.pid))
        time.sleep(POLL)
    if process.returncode:
        sys.exit(f"convert failed: {process.stderr.read().decode()}")
    return time.perf_counter() - begin, processor_seconds() - used, highest


def timed_copy(source: Path, destination: Path) -> float:
    shutil.rmtree(destination, ignore_errors=True)
    os.sync()
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", source, destination], check=True)
    return time.perf_counter() - begin


def timed_unpacking(folder: Path) -> float:
    """Seconds to unpack archives one after another, which two cores may share in a conversion."""
    begin = time.perf_counter()
    for file in folder.iterdir():
        unpack_gzip(file)
    return (time.perf_counter() - begin) / min(2, os.cpu_count() or 1)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a data set."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                found[str(file.relative_to(folder))] = hashlib.file_digest(
                    content, "sha256"
                ).hexdigest()
    return found


def kill_and_resume(args: argparse.Namespace, whole: Path, seconds: float) -> dict:
    """Kills conversions at random moments; True where all results are those in `whole`."""
    rng = random.Random(args.seed)
    expected, destination = digests(whole), args.folder / "killed"
    shutil.rmtree(destination, ignore_errors=True)
    kills = completed = identical = left_half_written = 0
    kept = []
    conversion = command(set_folder(args), destination, args.workers, args.shard_size)
    while True:
        process = start(conversion)
        moment = rng.uniform(0, seconds) if kills < args.kills else None
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            if kills % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            kills += 1
            left_half_written += any(destination.glob(".*.tmp"))
            kept.append(len(list(destination.glob("*.tfrecord-*"))))
            continue
        if process.returncode:
            sys.exit(f"convert failed: {process.stderr.read().decode()}")
        completed += 1
        found = digests(destination)
        identical += found == expected
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                print(f"after kill {kills}: {name} differs")
        shutil.rmtree(destination)
        if kills == args.kills:
            break
    return {
        "kills": kills,
        "finished shards at each kill": kept,
        "kills with a half-written shard": left_half_written,
        "completed": completed,
        "bit-identical": identical,
    }


def compared_with_copying(args: argparse.Namespace) -> dict:
    """Copies the set and converts it --rounds times in turn; leaves the last result."""
    source, converted = set_folder(args), args.folder / "converted"
    size = sum(file.stat().st_size for file in source.iterdir())
    copies, conversions, processors, memory = [], [], [], 0
    conversion = command(source, converted, args.workers, args.shard_size)
    for _ in range(args.rounds):
        shutil.rmtree(converted, ignore_errors=True)
        copies.append(timed_copy(source, args.folder / "copy"))
        seconds, used, highest = timed_convert(conversion)
        conversions.append(seconds)
        processors.append(used)
        memory = max(memory, highest)
    shutil.rmtree(args.folder / "copy")
    seconds = statistics.median(conversions)
    unpacked = {}
    if args.container == "tar.gz":
        alone = timed_unpacking(source)
        unpacked = {
            "gzip alone seconds": alone,
            "records/s but gzip": args.records / (seconds - alone),
        }
    return unpacked | {
        "records": args.records,
        "bytes": size,
        "workers": args.workers,
        "convert seconds": seconds,
        "convert records/s": args.records / seconds,
        "records/processor s": args.records / statistics.median(processors),
        "convert MB/s": size / seconds / 1e6,
        "cp MB/s": size / statistics.median(copies) / 1e6,
        "convert / cp": statistics.median(
            copy / conversion for copy, conversion in zip(copies, conversions, strict=True)
        ),
        "highest memory MB": memory / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument(
        "--container", default="recordio", choices=("recordio", "lmdb", "tar", "tar.gz")
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard_size", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "uniface_convert"
    )
    parser.add_argument("--keep", action="store_true", help="leave the set there, for another run")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not set_folder(args).exists():
        begin = time.perf_counter()
        write_set(set_folder(args), args.records, args.container, make_item())
        say(f"a set written in {time.perf_counter() - begin:.1f} s")
    result = {}
    if args.rounds:
        result = compared_with_copying(args)
    for key, value in result.items():
        shown = f"{value:>14,.2f}" if isinstance(value, float) else f"{value:>14,}"
        say(f"{key:<24}{shown}")
    if args.rounds and args.kills:
        result |= kill_and_resume(args, args.folder / "converted", result["convert seconds"])
        say(
            f"{result['kills']} kills, {result['kills with a half-written shard']} of them with a "
            f"half-written shard; {result['bit-identical']} of {result['completed']} completed "
            "conversions bit-identical"
        )
    shutil.rmtree(args.folder / "converted", ignore_errors=True)
    if not args.keep:
        shutil.rmtree(set_folder(args))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if result.get("bit-identical") != result.get("completed"):
        sys.exit("a resumed conversion differs from the undisturbed one")


if __name__ == "__main__":
    main()
