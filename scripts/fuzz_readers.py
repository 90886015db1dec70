"""Millions of damaged files for the readers of what comes from the internet.

    python scripts/fuzz_readers.py --inputs=2000000 --processes=2

Whole files of every kind are changed at random (bytes, numbers at their limits, tokens of the
format, slices cut out, doubled or taken from another file, ends cut off) and read whole: RecordIO
with its index, .bin (packed by xz too), manifests, lists, tar archives (by gzip too), LMDB files,
Parquet and Arrow tables, TFace's records, TFRecord data sets with their metadata and indices, and
the records of such a set alone. A reader may return or raise UserError, in one line that names the
file. Anything else is a failure and is kept in --failures: another exception, a read of more than
--seconds of the processor, memory of more than twice the input and 256 KiB (by tracemalloc on one
in 16; an address-space limit of 256 MiB beyond the process itself holds for all). The same seed
gives the same inputs.
"""

import argparse
import contextlib
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from fuzz_seeds import SEEDS, TOKENS, Files

from uniface_jax.data.conversion.manifest import read_manifest
from uniface_jax.data.formats import safe_pickle
from uniface_jax.data.formats.bin_pairs import read_pairs
from uniface_jax.data.formats.tf_example import parse
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.lists import ListSource
from uniface_jax.data.sources.lmdb import LmdbSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.recordio import RecordIOSource
from uniface_jax.data.sources.tar import TarSource
from uniface_jax.data.sources.tface import TfaceSource
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

ALLOWANCE = 1 << 18  # bytes of interpreter and buffers, whatever the input
ADDRESS_SPACE = 1 << 28  # beyond what the process holds at its start
MEASURED = 16
PIECE = 1000  # inputs of a reader in one process, at least
INTEGERS = [0, 1, 2, 3, 4, 7, 8, 24, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**29 - 1, 2**29]
INTEGERS += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1]


def damaged(content: bytes, other: bytes, tokens: list[bytes], rng: random.Random) -> bytes:
    """`content` with one to six changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        change = rng.randrange(8)
        if change == 0 and data:
            data[place - 1] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[place : place + 1] = bytes(
                (rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))),)
            )
        elif change == 2:
            form = rng.choice(("<I", "<Q", "<H", ">I"))
            size = struct.calcsize(form)
            at = place // 4 * 4 if rng.random() < 0.7 else place
            data[at : at + size] = struct.pack(form, rng.choice(INTEGERS) % (1 << 8 * size))
        elif change == 3:
            data[place:place] = rng.choice(tokens)
        elif change == 4:
            del data[place : place + rng.randint(1, 64)]
        elif change == 5:
            data[place:place] = data[place : place + rng.randint(1, 256)]
        elif change == 6:
            start = rng.randrange(len(other) + 1)
            data[place:place] = other[start : start + rng.randint(1, 128)]
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def damaged_files(inputs: list[Files], tokens: list[bytes], rng: random.Random) -> Files:
    """One of `inputs` with changes in one or two of its files; now and then in none or more."""
    files = rng.choice(inputs)
    chance = 1.6 / len(files)
    others = rng.choice(inputs)
    return {
        name: damaged(content, others[rng.choice(list(others))], tokens, rng)
        if rng.random() < chance
        else content
        for name, content in files.items()
    }


def read_all(source: Source) -> None:
    """Every item."""
    for index in range(len(source)):
        try:
            source[index]
        except UserError as e:
            check_message(e)


def read_dataset(folder: Path) -> None:
    """Every record of a TFRecord data set, and what its indices say."""
    source = TFRecordSource(folder)
    read_all(source)
    everything = np.arange(len(source))
    source.images(everything)
    source.sizes(everything)
    source.fingerprint()


def read_example(folder: Path) -> None:
    """Return a record of a TFRecord data set, as its source parses it."""
    file = folder / "example"
    try:
        parse(file.read_bytes())
    except ValueError as e:
        raise UserError(f"{file}: {e}") from e


READERS: dict[str, Callable[[Path], object]] = {
    "recordio": lambda folder: read_all(RecordIOSource(folder / "train.rec")),
    "bin": lambda folder: [safe_pickle.content(i) for i in read_pairs(folder / "set.bin").images],
    "manifest": read_manifest,
    "list": lambda folder: read_all(ListSource(folder / "list.txt")),
    "tar": lambda folder: read_all(TarSource(folder / "set.tar")),
    "tar.gz": lambda folder: read_all(TarSource(folder)),
    "xz": lambda folder: read_pairs(folder / "set.xz"),
    "lmdb": lambda folder: read_all(LmdbSource(folder / "set.lmdb")),
    "parquet": lambda folder: read_all(open_source(folder / "set.parquet")),
    "arrow": lambda folder: read_all(open_source(folder)),
    "tface": lambda folder: read_all(TfaceSource(folder / "index.txt")),
    "tfrecord": read_dataset,
    "example": read_example,
}


class HangError(BaseException):
    """A read took too long; no Exception, so that no reader takes it for damage."""


def on_alarm(*_: object) -> None:
    raise HangError


def check_message(error: UserError) -> None:
    text = str(error)
    if "\n" in text or len(text) > 2000 or "/" not in text:
        raise AssertionError(f"a message of several lines, or without the file: {text[:300]!r}")


def limit_memory() -> None:
    """Set an address-space limit over what is mapped now, which a reader's bomb would meet."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def outcome_of(reader: Callable[[Path], object], folder: Path, seconds: float) -> str:
    """Return how a read ended: read, refused, or what went wrong."""
    # Processor time tells a loop, whatever else the machine does; a wait takes none of it.
    timers = ((signal.ITIMER_PROF, seconds), (signal.ITIMER_REAL, 60 * seconds))
    for timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        reader(folder)
        return "read"
    except UserError as e:
        try:
            check_message(e)
            return "refused"
        except AssertionError as wrong:
            return f"message: {wrong}"
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        return f"{type(e).__name__}: {str(e)[:200]}"
    finally:
        for timer, _ in timers:
            signal.setitimer(timer, 0)


def measured_outcome(
    reader: Callable[[Path], object], folder: Path, seconds: float, size: int
) -> tuple[str, int]:
    """The same, and the memory beyond twice the input's `size`, in bytes.

    What is too much is measured again: Python's table of interned strings, among which pathlib puts
    the parts of every path, grows by megabytes once in many thousand inputs.
    """
    for _ in range(2):
        tracemalloc.clear_traces()
        outcome = outcome_of(reader, folder, seconds)
        beyond = tracemalloc.get_traced_memory()[1] - 2 * size
        if beyond <= ALLOWANCE:
            return outcome, beyond
    return f"memory: {beyond} bytes beyond twice the input", beyond


def put(files: Files, folder: Path) -> None:
    """Makes `files` all that is in `folder`."""
    for left in folder.iterdir():
        left.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def run(
    kind: str, count: int, seed: int, seconds: float, failures: str
) -> tuple[str, Counter, int]:
    """Reads `count` inputs; how they ended, and the highest memory beyond twice the input."""
    rng, inputs, tokens, reader = random.Random(seed), SEEDS[kind](), TOKENS[kind], READERS[kind]
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, on_alarm)
    limit_memory()
    outcomes: Counter = Counter()
    worst = 0
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as temporary:
        folder = Path(temporary)
        for files in inputs:  # what is imported and cached at first use is nobody's bomb
            put(files, folder)
            with contextlib.suppress(UserError):
                reader(folder)
        for number in range(count):
            files = damaged_files(inputs, tokens, rng)
            put(files, folder)
            # From here to the end: a tracemalloc that is stopped while one of pyarrow's threads
            # allocates crashes the process (seen in 3.11).
            if number == count - count // MEASURED - 1:
                tracemalloc.start()
            if not tracemalloc.is_tracing():
                outcome = outcome_of(reader, folder, seconds)
            else:
                size = sum(map(len, files.values()))
                outcome, beyond = measured_outcome(reader, folder, seconds, size)
                worst = max(worst, beyond)
            outcomes[outcome] += 1
            if outcome not in ("read", "refused") and outcomes[outcome] <= 3:
                kept = Path(failures) / f"{kind}-{seed}-{number}"
                kept.mkdir(parents=True, exist_ok=True)
                put(files, kept)
    return kind, outcomes, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=2_000_000, help="of all readers together")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5, help="that one read may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", default="fuzz_failures")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kinds, begin = args.readers.split(","), time.perf_counter()
    # A process a piece, which takes longer to start than to read a hundred inputs.
    pieces = max(1, min(max(args.processes, 8), args.inputs // (len(kinds) * PIECE)))
    each = -(-args.inputs // (len(kinds) * pieces))
    result = {
        kind: {"inputs": 0, "read": 0, "refused": 0, "beyond": 0, "failures": {}} for kind in kinds
    }
    with ProcessPoolExecutor(args.processes, max_tasks_per_child=1) as pool:
        tasks = [
            pool.submit(run, kind, each, 1000 * args.seed + piece, args.seconds, args.failures)
            for piece in range(pieces)
            for kind in kinds
        ]
        for task in tasks:
            kind, outcomes, worst = task.result()
            row = result[kind]
            row["inputs"] += sum(outcomes.values())
            row["beyond"] = max(row["beyond"], worst)
            for outcome, count in outcomes.items():
                if outcome in ("read", "refused"):
                    row[outcome] += count
                else:
                    row["failures"][outcome] = row["failures"].get(outcome, 0) + count
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{'reader':<10}{'inputs':>10}{'read':>10}{'refused':>10}{'failures':>10}  memory beyond 2x"
    )
    for kind, row in result.items():
        failed = sum(row["failures"].values())
        print(
            f"{kind:<10}{row['inputs']:>10,}{row['read']:>10,}{row['refused']:>10,}{failed:>10,}"
            f"  {row['beyond'] / 1024:.0f} KiB"
        )
        for outcome, count in row["failures"].items():
            print(f"    {count} x {outcome}")
    total = sum(row["inputs"] for row in result.values())
    print(f"{total:,} inputs in {time.perf_counter() - begin:.0f} s")
    if any(row["failures"] for row in result.values()):
        sys.exit("failures: see above")


if __name__ == "__main__":
    main()
