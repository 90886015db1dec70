"""Training batches from any source: seeded order, parallel decoding, exact position.

Sample k of a run (k = step · batch_size + i) is position k mod N of epoch k div N, and its record
is found by a permutation computed on the spot (shuffle.py); sources are read at random. So the
position in the data is the step number alone: any process starts at any step without replaying,
and the order is the same on any number of processes.

Threads decode and augment straight into the batch's memory; the decoders let go of Python's lock.
"""

import collections
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
_CHUNK = 32  # images that a thread takes at once
_JPEG = b"\xff\xd8\xff"


def sample_indices(
    step: int, batch_size: int, num_examples: int, seed: int, index: int = 0, count: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(samples, records) of part `index` of `count` of the global batch `step`: int64 [B / count].

    samples: the run's running number k; records: 0..num_examples-1, each exactly once an epoch.
    """
    local = batch_size // count
    samples = step * batch_size + index * local + np.arange(local, dtype=np.int64)
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
    return _batches(source, plan, augmentations(config), start_step, workers)


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

    def indices(self, step: int, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
        return sample_indices(
            step, self.batch_size, num_examples, self.seed, self.process_index, self.process_count
        )


def _batches(
    source: Source, plan: _Plan, functions: list[Augmentation], step: int, threads: int
) -> Iterator[Batch]:
    buffers = Buffers((plan.local, plan.image_size, plan.image_size, 3))
    numbers = sum(function.numbers for function in functions)
    cv2.setNumThreads(1)  # images are in parallel; OpenCV's own threads would fight for the cores
    pool = ThreadPoolExecutor(threads, "decode")

    def start(step: int) -> tuple[Batch, list[Future]]:
        samples, records = plan.indices(step, len(source))
        labels = np.empty(plan.local, np.int32)
        batch = {"image": buffers.take(), "label": labels, "index": records}
        uniform = uniforms(samples, numbers, plan.seed)
        chunks = [slice(i, i + _CHUNK) for i in range(0, plan.local, _CHUNK)]
        return batch, [
            pool.submit(
                _fill, source, records[chunk].tolist(), uniform[chunk].tolist(), functions,
                batch["image"][chunk], labels[chunk],
            )
            for chunk in chunks
        ]  # fmt: skip

    waiting: collections.deque[tuple[Batch, list[Future]]] = collections.deque()
    try:
        while True:
            while len(waiting) <= AHEAD:
                waiting.append(start(step))
                step += 1
            batch, chunks = waiting.popleft()
            for chunk in chunks:
                chunk.result()
            yield batch
            del batch, chunks  # the memory is free as soon as the caller has done with it
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fill(
    source: Source,
    records: list[int],
    uniform: list[list[float]],
    functions: list[Augmentation],
    pixels: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Decodes and augments `records` into pixels uint8 [K, S, S, 3] and labels int32 [K]."""
    for place, (record, numbers) in enumerate(zip(records, uniform, strict=True)):
        item = source[record]
        if not 0 <= item.label < source.num_classes:
            raise UserError(
                f"{source.name}: record {record} has the label {item.label}, "
                f"expected 0..{source.num_classes - 1}"
            )
        labels[place] = item.label
        out = pixels[place]
        decode_into(item, out, source.name, record)
        result = augment(out, functions, numbers)
        if result is not out:
            np.copyto(out, result)


def decode_into(item: Item, out: np.ndarray, source_name: str, record: int) -> None:
    """The pixels of `item` to out, uint8 [H, W, 3]; UserError for no image or another size.

    A JPEG of the right size goes straight through libjpeg-turbo, which looks at the size in the
    header first and takes no memory of its own for more. Whatever that refuses is decoded again by
    the decoder that reads every format, and names what is wrong.
    """
    encoded = item.image
    if encoded[:3] == _JPEG:
        try:
            if simplejpeg.decode_jpeg(encoded, buffer=out).shape == out.shape:
                return
        except ValueError:
            pass
    where = f"{source_name}: record {record} ({item.name})"
    _, height, width = images.header(encoded, where)
    if (height, width) != out.shape[:2]:
        raise UserError(
            f"{where}: {width}x{height} pixels, expected {out.shape[1]}x{out.shape[0]}; "
            "python -m uniface_jax.align makes them"
        )
    np.copyto(out, images.decode(encoded, where))
