"""Training batches from any source: seeded order, parallel decoding, exact position.

sampler.py says which records a step holds. Threads, or for large data sets processes (workers.py),
decode and augment them straight into the batch's memory.
"""

import collections
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.input.augment import Augment, augmentations
from uniface_jax.data.input.decoding import Part
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.input.workers import Decoders, Finish, Processes, Threads, Work
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

Batch = dict[str, np.ndarray]
DECODERS = ("auto", "threads", "processes")
BATCHES_AHEAD = 2  # in work beside the one that is waited for
_CHUNK_IMAGES = 256  # decoded at once, at most
_LARGE_RECORDS = 50_000  # from which on it does not matter that processes take time to start


@dataclass(frozen=True)
class DecoderPool:
    """Workers that decode images.

    Attributes:
        kind: one of DECODERS. "processes" give each worker a process of its own; "auto" does so for
            large data sets where the source reopens quickly (converted and synthetic ones). Batches
            are the same.
        workers: how many; None is one a core.
        skip: let the next usable record of the source stand in for one that cannot be used, instead
            of raising what is wrong with it.
        landmarks: give those of each image too, mirrored and moved as its pixels are.
    """

    kind: str = "auto"
    workers: int | None = None
    skip: bool = False
    landmarks: bool = False

    def chosen_for(self, source: Source) -> tuple[type[Processes | Threads], int]:
        """Return what decodes `source`, and how many workers of it."""
        kind = self.kind
        if kind == "auto":
            large = source.reopens_quickly and len(source) >= _LARGE_RECORDS
            kind = "processes" if large and hasattr(os, "memfd_create") else "threads"
        workers = self.workers or len(os.sched_getaffinity(0))
        return (Processes if kind == "processes" else Threads), workers


def train_batches(
    source: Source | Path | str,
    sampler: Sampler,
    *,
    start_step: int = 0,
    augment: Augment | Mapping[str, Any] | None = None,
    image_size: int = IMAGE_SIZE,
    decoders: DecoderPool | None = None,
) -> Generator[Batch, None, None]:
    """Yield endless batches of `source`, from the global `start_step` on.

    Batches are always full and run over the ends of epochs; each epoch holds every record once, in
    an order of its own. Batch and augmentation depend on (sampler.seed, step) alone.

    Args:
        source: a source, or what open_source opens.
        sampler: batch size, order, and this process's part.
        start_step: the number of the first batch, as after a resume.
        augment: what is done to the images, or the values of a config's section; None is the flip
            alone.
        image_size: S, the height and width that all images have, pixels.
        decoders: who decodes; None is DecoderPool().

    Yields:
        For B = sampler.local_batch_size:
            image  uint8 [B, S, S, 3], RGB
            label  int32 [B], 0..C-1
            landmarks  float32 [B, 5, 2], where DecoderPool.landmarks wants them
            index  int64 [B], the record's number in the data set
            skipped  int64 [K], the records that could not be used, those of DecoderPool.skip;
                others stand in for them, in `index` too

    Raises:
        UserError: at the call, when the data set is incomplete or malformed, when its images are
            known to be of another size, and when an augmentation's key or value is not allowed;
            while iterating, when a record cannot be decoded, has another size, or a label out of
            range.

    Example:
        >>> batches = train_batches("synthetic:10:100", Sampler(batch_size=8, seed=0))
        >>> batch = next(batches)
        >>> batch["image"].shape, batch["label"].dtype
        ((8, 112, 112, 3), dtype('int32'))
        >>> batches.close()
    """
    if isinstance(source, Path | str):
        source = open_source(source)
    wanted = (image_size, image_size, 3)
    if source.image_shape not in (None, wanted):
        raise UserError(
            f"{source.name}: images of {source.image_shape}, expected {wanted}; "
            "python -m uniface_jax.align makes them"
        )
    config = augment if isinstance(augment, Augment) else Augment.from_mapping(augment or {})
    pool = decoders or DecoderPool()
    return _batches(source, sampler, start_step, config, image_size, pool)


def _batches(
    source: Source,
    sampler: Sampler,
    step: int,
    config: Augment,
    image_size: int,
    pool: DecoderPool,
) -> Generator[Batch, None, None]:
    # The mirror is part of decoding; its number is the first of a sample's.
    """Yield the batches of train_batches."""
    others = replace(config, flip=False)
    numbers = config.flip + sum(function.numbers for function in augmentations(others))
    samples = sampler.stream(step, len(source), numbers)
    local = sampler.local_batch_size
    kind, workers = pool.chosen_for(source)
    size = max(1, min(_CHUNK_IMAGES, local // workers))
    places = [slice(i, min(i + size, local)) for i in range(0, local, size)]
    shape = (local, image_size, image_size, 3)
    work = Work(source, others, shape, pool.skip, pool.landmarks)
    decoders: Decoders = kind(work, workers)

    def start() -> tuple[Batch, Finish]:
        records, uniform = next(samples)
        memory = work.memory(decoders.buffers.take())
        batch = {"image": memory.pixels, "label": memory.labels, "index": records}
        if memory.landmarks is not None:
            batch["landmarks"] = memory.landmarks
        mirrored = uniform[:, 0] < 0.5 if config.flip else np.zeros(local, bool)
        uniform = uniform[:, int(config.flip) :]
        parts = [(at, Part(records[at], mirrored[at], uniform[at])) for at in places]
        return batch, decoders.start(parts, memory)

    waiting: collections.deque[tuple[Batch, Finish]] = collections.deque()
    try:
        while True:
            while len(waiting) <= BATCHES_AHEAD:
                waiting.append(start())
            batch, finish = waiting.popleft()
            yield _with_records(batch, finish())
            del batch, finish  # the memory is free as soon as the caller has done with it
    finally:
        decoders.close()


def _with_records(batch: Batch, replaced: Mapping[int, int]) -> Batch:
    """Return the batch with the records that were used, and those that could not be."""
    places = np.fromiter(replaced, np.int64, len(replaced))
    skipped = batch["index"][places]
    if replaced:
        batch["index"] = batch["index"].copy()
        batch["index"][places] = list(replaced.values())
    return batch | {"skipped": skipped}
