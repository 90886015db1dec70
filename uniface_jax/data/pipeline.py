"""Training batches from any source: seeded order, parallel decoding, exact position.

Sample k of a run (k = step · batch_size + i) is position k mod N of epoch k div N, and its record
is found by a permutation computed on the spot (shuffle.py); sources are read at random. So the
position in the data is the step number alone: any process starts at any step without replaying,
and the order is the same on any number of processes.

Threads decode and augment straight into the batch's memory; the decoders let go of Python's lock.
"""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from uniface_jax.data import images
from uniface_jax.data.alignment import IMAGE_SIZE
from uniface_jax.data.augment import Augment, Augmentation, augment, augmentations
from uniface_jax.data.buffers import Buffers
from uniface_jax.data.items import Item, Source
from uniface_jax.data.shuffle import shuffled, uniforms
from uniface_jax.data.sources import open_source
from uniface_jax.data.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

Batch = dict[str, np.ndarray]
AHEAD = 2  # batches in work beside the one that is waited for
_CHUNK = 128  # images that a thread takes at once, at most
_PLANNED = 4096  # samples that are looked up at once: array operations on fewer are mostly overhead
_JPEG = b"\xff\xd8\xff"


def sample_indices(
    step: int | np.ndarray,
    batch_size: int,
    num_examples: int,
    seed: int,
    index: int = 0,
    count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """(samples, records) of part `index` of `count` of the global batch `step`: int64 [B / count].

    samples: the run's running number k; records: 0..num_examples-1, each exactly once an epoch.
    step may be an array, int64 [S], for results of [S, B / count].
    """
    local = batch_size // count
    begins = np.asarray(step, np.int64)[..., None] * batch_size
    samples = begins + index * local + np.arange(local, dtype=np.int64)
    epochs, positions = np.divmod(samples, num_examples)
    return samples, shuffled(positions, num_examples, seed, epochs)


def train_batches(
    source: Source | Path | str,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment | Mapping[str, Any] | None = None,
    image_size: int = IMAGE_SIZE,
    process_index: int = 0,
    process_count: int = 1,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Endless batches of `source` (or what open_source opens), from the global `start_step` on.

    batch_size: of all processes together; this process gets the contiguous part `process_index` of
    `process_count`. augment: None is the flip alone. threads: of decoding; None is all cores.
    Each batch, B = batch_size / process_count:
        image  uint8 [B, image_size, image_size, 3], RGB
        label  int32 [B], 0..C-1
        index  int64 [B], the record's number in the data set
    Batches are always full and run over the ends of epochs; each epoch holds every record once, in
    an order of its own. Batch and augmentation depend on (seed, step) alone.

    Raises UserError, at the call, when the data set is incomplete or malformed, when its images are
    known to be of another size, when batch_size is not divisible by process_count, and when an
    augmentation's key or value is not allowed; while iterating, when a record cannot be decoded,
    has another size, or a label out of range.
    """
    if isinstance(source, Path | str):
        source = open_source(source)
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size}: expected a positive multiple of the "
            f"{process_count} processes"
        )
    wanted = (image_size, image_size, 3)
    if isinstance(source, TFRecordSource) and source.info.image_shape not in (None, wanted):
        raise UserError(
            f"{source.name}: images of {source.info.image_shape}, expected {wanted}; "
            "python -m uniface_jax.align makes them"
        )
    config = augment if isinstance(augment, Augment) else Augment.from_mapping(augment or {})
    plan = _Plan(batch_size, seed, process_index, process_count, image_size)
    workers = threads or len(os.sched_getaffinity(0))
    return _batches(source, plan, config, start_step, workers)


@dataclass(frozen=True)
class _Plan:
    """Which records a step of this process holds, and what they should look like."""

    batch_size: int
    seed: int
    process_index: int
    process_count: int
    image_size: int

    @property
    def local(self) -> int:
        return self.batch_size // self.process_count

    def samples(
        self, step: int, num_examples: int, numbers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Records, int64 [B], and their random numbers, float32 [B, numbers], from `step` on."""
        at_once = max(1, _PLANNED // self.local)
        while True:
            samples, records = sample_indices(
                np.arange(step, step + at_once), self.batch_size, num_examples, self.seed,
                self.process_index, self.process_count,
            )  # fmt: skip
            yield from zip(records, uniforms(samples, numbers, self.seed), strict=True)
            step += at_once


def _batches(
    source: Source, plan: _Plan, config: Augment, step: int, threads: int
) -> Iterator[Batch]:
    buffers = Buffers((plan.local, plan.image_size, plan.image_size, 3))
    # The mirror is part of decoding; its number is the first of a sample's.
    functions = augmentations(replace(config, flip=False))
    numbers = config.flip + sum(function.numbers for function in functions)
    samples = plan.samples(step, len(source), numbers)
    size = max(1, min(_CHUNK, plan.local // threads))
    cv2.setNumThreads(1)  # images are in parallel; OpenCV's own threads would fight for the cores
    pool = ThreadPoolExecutor(threads, "decode")

    def start() -> tuple[Batch, list[Future]]:
        records, uniform = next(samples)
        labels = np.empty(plan.local, np.int32)
        batch = {"image": buffers.take(), "label": labels, "index": records}
        mirrored = uniform[:, 0] < 0.5 if config.flip else np.zeros(plan.local, bool)
        uniform = uniform[:, int(config.flip) :]
        chunks = [slice(i, i + size) for i in range(0, plan.local, size)]
        return batch, [
            pool.submit(
                _fill, source, records[chunk], mirrored[chunk].tolist(), uniform[chunk].tolist(),
                functions, batch["image"][chunk], labels[chunk],
            )
            for chunk in chunks
        ]  # fmt: skip

    waiting: collections.deque[tuple[Batch, list[Future]]] = collections.deque()
    try:
        while True:
            while len(waiting) <= AHEAD:
                waiting.append(start())
            batch, chunks = waiting.popleft()
            wait(chunks, return_when=FIRST_EXCEPTION)  # woken once, not by every chunk
            for chunk in chunks:
                chunk.result()
            yield batch
            del batch, chunks  # the memory is free as soon as the caller has done with it
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fill(
    source: Source,
    records: np.ndarray,
    mirrored: list[bool],
    uniform: list[list[float]],
    functions: list[Augmentation],
    pixels: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Decodes and augments `records`, int64 [K], into uint8 [K, S, S, 3] and int32 [K]."""
    found = source.images(records) if isinstance(source, TFRecordSource) else None
    items = [] if found else [source[record] for record in records.tolist()]
    encoded: Sequence[bytes | memoryview] = found[0] if found else [item.image for item in items]
    given = found[1] if found else np.array([item.label for item in items], np.int64)
    labels[:] = _checked_labels(source, records, given)
    # BGR, reversed byte by byte along each row, is the mirror in RGB: a third of what it takes to
    # reverse pixels. Views are made all at once, since Python's lock is held for every step here.
    flat = (*pixels.shape[:2], pixels.shape[2] * 3)
    scratch = np.empty(pixels.shape[1:], np.uint8)
    reversible, rows = scratch.reshape(flat[1:]), list(pixels.reshape(flat))
    for place, (image, out) in enumerate(zip(encoded, list(pixels), strict=True)):
        mirror = mirrored[place]
        if mirror and _decode_jpeg(image, scratch, "BGR"):
            cv2.flip(reversible, 1, rows[place])
        elif mirror or not _decode_jpeg(image, out, "RGB"):
            record = int(records[place])
            item = items[place] if items else source[record]
            labels[place] = item.label
            _decode_any(item, out, mirror, f"{source.name}: record {record} ({item.name})")
        if functions:
            result = augment(out, functions, uniform[place])
            if result is not out:
                np.copyto(out, result)


def _checked_labels(source: Source, records: np.ndarray, labels: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= source.num_classes))
    if len(wrong):
        raise UserError(
            f"{source.name}: record {records[wrong[0]]} has the label {labels[wrong[0]]}, "
            f"expected 0..{source.num_classes - 1}"
        )
    return labels


def _decode_jpeg(encoded: bytes | memoryview, out: np.ndarray, order: str) -> bool:
    """The pixels of a JPEG of the right size to out, uint8 [H, W, 3], by libjpeg-turbo.

    False for anything else: the decoder looks at the size in the header first and takes no memory
    of its own for more.
    """
    if encoded[:3] != _JPEG:
        return False
    try:
        return bool(simplejpeg.decode_jpeg(encoded, order, buffer=out).shape == out.shape)
    except ValueError:
        return False


def _decode_any(item: Item, out: np.ndarray, mirror: bool, where: str) -> None:
    """The pixels of `item` to out, by the decoder of every format, which names what is wrong."""
    _, height, width = images.header(item.image, where)
    if (height, width) != out.shape[:2]:
        raise UserError(
            f"{where}: {width}x{height} pixels, expected {out.shape[1]}x{out.shape[0]}; "
            "python -m uniface_jax.align makes them"
        )
    pixels = images.decode(item.image, where)
    np.copyto(out, pixels[:, ::-1] if mirror else pixels)
