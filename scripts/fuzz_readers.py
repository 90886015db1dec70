"""Millions of damaged files for the readers of what comes from the internet.

    python scripts/fuzz_readers.py --inputs=2000000 --processes=2

Whole files of every kind are changed at random (bytes, numbers at their limits, tokens of the
format, slices cut out, doubled or taken from another file, ends cut off) and read whole. A reader
may return or raise UserError, in one line that names the file. Anything else is a failure and is
kept in --failures: another exception, a read of more than --seconds of the processor, memory of
more than twice the input and 256 KiB (by tracemalloc on every 16th input; an address-space limit of
256 MiB beyond the process itself holds for all). The same seed gives the same inputs.
"""

import argparse
import contextlib
import io
import json
import pickle
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from uniface_jax.data import safe_pickle
from uniface_jax.data.conversion.manifest import (
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    write_manifest,
)
from uniface_jax.data.lists import ListSource
from uniface_jax.data.pairs import read_pairs
from uniface_jax.data.recordio import MAGIC_BYTES
from uniface_jax.data.recordio_source import RecordIOSource
from uniface_jax.data.recordio_writer import framed, image_payload
from uniface_jax.data.tar_source import TarSource
from uniface_jax.errors import UserError

ALLOWANCE = 1 << 18  # bytes of interpreter and buffers, whatever the input
ADDRESS_SPACE = 1 << 28  # beyond what the process holds at its start
MEASURED = 16
INTEGERS = [0, 1, 2, 3, 4, 7, 8, 24, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**29 - 1, 2**29]
INTEGERS += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
DIGITS = b"9" * 5000  # more than int() takes
TOKENS = {
    "recordio": [MAGIC_BYTES, MAGIC_BYTES * 2, bytes(24), b"\t", b"\n", b"-1", b"9" * 25],
    "bin": [
        b".", b"(", b"]", b"}", b"R", b"b", b"cos\nsystem\n", b"\x8c\x02os", b"\x93", b"h\0",
        b"q\0", b"\x80\x05", b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"r\xff\xff\xff\xff",
        b"I1\n", b"L9L\n", b"I" + DIGITS + b"\n",
    ],
    "manifest": [
        b"null", b"1e999", b"-1", b"NaN", b"[" * 2000, b'{"a":', DIGITS, b'"', b"\\ud800", b"true",
    ],
    "list": [
        b"\t", b" ", b"\n", b"#", b"\r", b"\0", b"\xff", b"nan", b"1e309", DIGITS, b"/dev/zero",
    ],
    "tar": [
        b"ustar\x0000", b"././@LongLink", b"path=", bytes(512), b"\x80" + b"\xff" * 11, b"7777777",
    ],
}  # fmt: skip


def seeds(kind: str) -> list[list[bytes]]:
    """Whole inputs of a reader, each one or two files."""
    if kind == "recordio":
        sets = []
        for zero in ((4.0, 6.0), (9.0, 11.0)):
            payloads = [image_payload(0, zero, b"")]
            payloads += [image_payload(k, [k // 2], b"image" * k) for k in (1, 2, 3)]
            payloads += [image_payload(4 + i, (1.0, 2.0), b"") for i in range(2)]
            sets.append(payloads)
        sets.append([image_payload(k, [k, 0.5], MAGIC_BYTES * k + b"x") for k in range(4)])
        inputs = []
        for payloads in sets:
            records = [framed(payload) for payload in payloads]
            ends = np.cumsum([0] + [len(record) for record in records])
            index = "".join(f"{key}\t{at}\n" for key, at in enumerate(ends[:-1]))
            inputs += [[b"".join(records), index.encode()], [b"".join(records)]]
        return inputs
    if kind == "bin":
        images, same = [b"\xff\xd8image", b"other", b"x" * 300, b"\xff\xd8image"], [True, False]
        arrays = [np.frombuffer(image, np.uint8) for image in images]
        dumped = [pickle.dumps((images, same), protocol) for protocol in (0, 2, 4)]
        return [[content] for content in [*dumped, pickle.dumps((arrays, same), 2)]]
    if kind == "manifest":
        shards = [{"file": "a-0", "images": 2, "bytes": 9, "sha256": "0"}] * 2
        skipped = [{"index": 1, "name": "é", "reason": "cut"}]
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(
                Path(folder),
                Manifest(
                    "a", "b", "c", "d", 0, 2, "decode", "skip", 5, 4, 3, "0", "0", shards, skipped
                ),
            )
            return [[(Path(folder) / MANIFEST_FILE).read_bytes()]]
    if kind == "list":
        texts = ["# path label\na/1.jpg 7\nb/2.png 12\n", "0\t1.000000\ta b.png\n1\t0.0\tc.png\n"]
        texts.append("a.jpg\tann\nb.jpg\tp10\nc.jpg\tp9\n" * 5)
        return [[text.encode()] for text in texts]
    inputs = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            members = [("d" * 60 + "é/1.jpg", b"image"), ("d" * 60 + "é/1.cls", b"4")]
            members += [("2.json", b'{"label": 1}'), ("2.png", b"x" * 600)]
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        inputs.append([buffer.getvalue()[: tar.offset + 1024]])
    return inputs


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


def read_all(source: RecordIOSource | ListSource | TarSource) -> None:
    for index in range(len(source)):
        try:
            source[index]
        except UserError as e:
            check_message(e)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "recordio": ("train.rec", lambda file: read_all(RecordIOSource(file))),
    "bin": ("set.bin", lambda file: [safe_pickle.content(i) for i in read_pairs(file).images]),
    "manifest": (MANIFEST_FILE, lambda file: read_manifest(file.parent)),
    "list": ("list.txt", lambda file: read_all(ListSource(file))),
    "tar": ("set.tar", lambda file: read_all(TarSource(file))),
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
    """An address-space limit over what is mapped now, which a reader's bomb would meet."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def outcome_of(reader: Callable[[Path], object], file: Path, seconds: float) -> str:
    """How a read ended: read, refused, or what went wrong."""
    # Processor time tells a loop, whatever else the machine does; a wait takes none of it.
    timers = ((signal.ITIMER_PROF, seconds), (signal.ITIMER_REAL, 60 * seconds))
    for timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        reader(file)
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
    reader: Callable[[Path], object], file: Path, seconds: float, size: int
) -> tuple[str, int]:
    """The same, and the memory beyond twice the input's `size`, in bytes.

    What is too much is measured again: Python's table of interned strings, among which pathlib puts
    the parts of every path, grows by megabytes once in many thousand inputs.
    """
    for _ in range(2):
        tracemalloc.start()
        outcome = outcome_of(reader, file, seconds)
        beyond = tracemalloc.get_traced_memory()[1] - 2 * size
        tracemalloc.stop()
        if beyond <= ALLOWANCE:
            return outcome, beyond
    return f"memory: {beyond} bytes beyond twice the input", beyond


def run(
    kind: str, count: int, seed: int, seconds: float, failures: str
) -> tuple[str, Counter, int]:
    """Reads `count` inputs; how they ended, and the highest memory beyond twice the input."""
    rng, inputs, tokens = random.Random(seed), seeds(kind), TOKENS[kind]
    name, reader = READERS[kind]
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, on_alarm)
    limit_memory()
    outcomes: Counter = Counter()
    worst = 0
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        file = Path(folder) / name
        index = file.with_suffix(".idx")
        for content in inputs:  # what is imported and cached at first use is nobody's bomb
            file.write_bytes(content[0])
            with contextlib.suppress(UserError):
                reader(file)
        for number in range(count):
            files = [
                content if rng.random() < 0.2 and len(inputs[0]) == 2
                else damaged(content, rng.choice(rng.choice(inputs)), tokens, rng)
                for content in rng.choice(inputs)
            ]  # fmt: skip
            file.write_bytes(files[0])
            index.unlink(missing_ok=True)
            if len(files) == 2:
                index.write_bytes(files[1])
            if number % MEASURED:
                outcome = outcome_of(reader, file, seconds)
            else:
                outcome, beyond = measured_outcome(reader, file, seconds, sum(map(len, files)))
                worst = max(worst, beyond)
            outcomes[outcome] += 1
            if outcome not in ("read", "refused") and outcomes[outcome] <= 3:
                for part, content in enumerate(files):
                    Path(failures).mkdir(parents=True, exist_ok=True)
                    (Path(failures) / f"{kind}-{seed}-{number}-{part}").write_bytes(content)
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
    pieces = max(args.processes, 8)
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
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if any(row["failures"] for row in result.values()):
        sys.exit("failures: see above")


if __name__ == "__main__":
    main()
