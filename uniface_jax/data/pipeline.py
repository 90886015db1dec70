"""Training batches from a TFRecord data set: seeded order, parallel decoding, exact position.

Sample k of a run (k = step · batch_size + i) is position k mod N of epoch k div N, and its record
is found by a permutation computed on the spot (shuffle.py); records are read at random through
memory maps. So the position in the data is the step number alone: any process starts at any step
without replaying, and the order is the same on any number of processes.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data import images
from uniface_jax.data.alignment import IMAGE_SIZE
from uniface_jax.data.augment import Augment, Augmentation, augmentations
from uniface_jax.data.dataset_info import read_dataset_info
from uniface_jax.data.records import RecordReader
from uniface_jax.data.shuffle import shuffled, uniforms
from uniface_jax.data.tfrecord import TFRecordSource
from uniface_jax.errors import UserError


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
    path: Path | str,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment | Mapping[str, Any] | None = None,
    image_size: int = IMAGE_SIZE,
    process_index: int = 0,
    process_count: int = 1,
    threads: int | None = None,
    split: str = "train",
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of the data set at `path`, from the global step `start_step` on.

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
    info = read_dataset_info(path, split)
    reader = RecordReader(info)
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size}: expected a positive multiple of the "
            f"{process_count} processes"
        )
    wanted = (image_size, image_size, 3)
    if info.image_shape not in (None, wanted):
        raise UserError(
            f"{path}: images of {info.image_shape}, expected {wanted}; "
            "python -m uniface_jax.align makes them"
        )
    config = augment if isinstance(augment, Augment) else Augment.from_mapping(augment or {})
    plan = _Plan(batch_size, seed, process_index, process_count, image_size)
    dataset = _dataset(reader, plan, augmentations(config), start_step, threads)
    return _checked(dataset, reader, plan, start_step)


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


def _dataset(
    reader: RecordReader,
    plan: _Plan,
    functions: list[Augmentation],
    start_step: int,
    threads: int | None,
) -> Any:
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    local, image_shape = plan.local, [plan.image_size, plan.image_size, 3]

    # At least one: TensorFlow crashes on an array without elements from numpy_function.
    numbers = max(1, sum(function.numbers for function in functions))

    def read(step: np.integer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        samples, records = plan.indices(int(step), reader.info.num_examples)
        serialised = np.empty(local, object)
        serialised[:] = [reader[record] for record in records.tolist()]
        return serialised, uniforms(samples, numbers, plan.seed), records

    def read_batch(step: Any) -> dict[str, Any]:
        serialised, uniform, records = tf.numpy_function(
            read, [step], (tf.string, tf.float32, tf.int64), stateful=False
        )
        parsed = tf.io.parse_example(
            tf.ensure_shape(serialised, [local]),
            {
                "image": tf.io.FixedLenFeature([], tf.string),
                "label": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        return {
            "encoded": parsed["image"],
            "label": tf.cast(parsed["label"], tf.int32),
            "uniform": tf.ensure_shape(uniform, [local, numbers]),
            "index": tf.ensure_shape(records, [local]),
        }

    def decode(element: dict[str, Any]) -> dict[str, Any]:
        # decode_jpeg tells PNG by its content and reads that as well.
        image = tf.io.decode_jpeg(element["encoded"], channels=3, dct_method="INTEGER_FAST")
        image = tf.ensure_shape(image, image_shape)
        used = 0
        for function in functions:
            image = function.apply(image, element["uniform"][used : used + function.numbers])
            used += function.numbers
        return {"image": image, "label": element["label"], "index": element["index"]}

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False  # the depths below are known; tuning would only take memory
    if threads:
        options.threading.private_threadpool_size = threads
    return (
        tf.data.Dataset.counter(start_step)
        .map(read_batch, num_parallel_calls=2)
        .unbatch()
        .map(decode, num_parallel_calls=threads or len(os.sched_getaffinity(0)))
        .batch(local, drop_remainder=True)
        .prefetch(2)
        .with_options(options)
    )


def _checked(
    dataset: Any, reader: RecordReader, plan: _Plan, step: int
) -> Iterator[dict[str, np.ndarray]]:
    """Numpy batches; what TensorFlow finds wrong in a record becomes a UserError naming it."""
    import tensorflow as tf

    info = reader.info
    batches = dataset.as_numpy_iterator()
    while True:
        try:
            batch = next(batches)
        except tf.errors.OpError as e:
            _, records = plan.indices(step, info.num_examples)
            _find_culprit(TFRecordSource(info.path, info.split), records, plan.image_size)
            reason = " ".join(str(e.message).split())[:200]
            raise UserError(f"{info.path}: a record of step {step} failed ({reason})") from e
        labels = batch["label"]
        if labels.min() < 0 or labels.max() >= info.num_classes:
            worst = int(np.argmax((labels < 0) | (labels >= info.num_classes)))
            raise UserError(
                f"{info.path}: record {batch['index'][worst]} has the label {labels[worst]}, "
                f"expected 0..{info.num_classes - 1}"
            )
        yield batch
        step += 1


def _find_culprit(source: TFRecordSource, records: np.ndarray, image_size: int) -> None:
    """Raises UserError for the first record that is no example, no image, or of another size."""
    for record in records.tolist():
        item = source[record]
        where = f"{source.name}: record {record} ({item.name})"
        _, height, width = images.check(item.image, where)
        if (height, width) != (image_size, image_size):
            raise UserError(
                f"{where}: {width}x{height} pixels, expected {image_size}x{image_size}; "
                "python -m uniface_jax.align makes them"
            )
