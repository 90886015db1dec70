"""Training batches from any source: seeded order, parallel decoding, exact position.

Sample k of a run (k = step · batch_size + i) is position k mod N of epoch k div N, and its record
is found by a permutation computed on the spot (shuffle.py); sources are read at random. So the
position in the data is the step number alone: any process starts at any step without replaying,
and the order is the same on any number of processes.

Threads, or for large data sets processes (workers.py), decode and augment straight into the
batch's memory.
"""

import collections
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.faces.alignment import IMAGE_SIZE
from uniface_jax.data.input.augment import Augment, augmentations
from uniface_jax.data.input.decoding import Part
from uniface_jax.data.input.shuffle import shuffled, uniforms
from uniface_jax.data.input.workers import Decoders, Processes, Threads
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

Batch = dict[str, np.ndarray]
DECODERS = ("auto", "threads", "processes")
AHEAD = 2  # batches in work beside the one that is waited for
_CHUNK = 256  # images that are decoded at once, at most
_LARGE = 50_000  # records from which on it does not matter that processes take time to start
_PLANNED = 4096  # samples that are looked up at once: array operations on fewer are mostly overhead


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
    decoders: str = "auto",
) -> Iterator[Batch]:
    """Endless batches of `source` (or what open_source opens), from the global `start_step` on.

    batch_size: of all processes together; this process gets the contiguous part `process_index` of
    `process_count`. augment: None is the flip alone. threads: of decoding; None is all cores.
    decoders: one of DECODERS; "processes" give each thread a process of its own, "auto" does so for
    large data sets where the source can be opened again at little cost (converted and synthetic
    ones). Batches are the same.
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
    threads = threads or len(os.sched_getaffinity(0))
    if decoders == "auto":
        reopened = isinstance(source, TFRecordSource | SyntheticSource)
        suitable = reopened and len(source) >= _LARGE and hasattr(os, "memfd_create")
        decoders = "processes" if suitable else "threads"
    return _batches(source, plan, config, start_step, threads, decoders == "processes")


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
    source: Source, plan: _Plan, config: Augment, step: int, threads: int, processes: bool
) -> Iterator[Batch]:
    # The mirror is part of decoding; its number is the first of a sample's.
    others = replace(config, flip=False)
    numbers = config.flip + sum(function.numbers for function in augmentations(others))
    samples = plan.samples(step, len(source), numbers)
    size = max(1, min(_CHUNK, plan.local // threads))
    shape = (plan.local, plan.image_size, plan.image_size, 3)
    kind = Processes if processes else Threads
    decoders: Decoders = kind(source, others, shape, threads)

    def start() -> tuple[Batch, Callable[[], None]]:
        records, uniform = next(samples)
        labels = np.empty(plan.local, np.int32)
        batch = {"image": decoders.buffers.take(), "label": labels, "index": records}
        mirrored = uniform[:, 0] < 0.5 if config.flip else np.zeros(plan.local, bool)
        uniform = uniform[:, int(config.flip) :]
        places = [slice(i, min(i + size, plan.local)) for i in range(0, plan.local, size)]
        parts = [(at, Part(records[at], mirrored[at], uniform[at])) for at in places]
        return batch, decoders.start(parts, batch["image"], labels)

    waiting: collections.deque[tuple[Batch, Callable[[], None]]] = collections.deque()
    try:
        while True:
            while len(waiting) <= AHEAD:
                waiting.append(start())
            batch, finish = waiting.popleft()
            finish()
            yield batch
            del batch, finish  # the memory is free as soon as the caller has done with it
    finally:
        decoders.close()
