"""Records that a step of a run holds, computed from the step's number alone.

Sample k of a run (k = step · batch_size + i) is position k mod L of epoch k div L, and its record
is found by a permutation of N computed on the spot (shuffle.py). An epoch's length L is the number
N of records, or with `drop_last` the whole batches in it. So the position in the data is the step
number: any process starts at any step without replaying, and the order is the same on any number of
processes. An Order (order.py) puts draws of unequal frequency in the place of the N records.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uniface_jax.data.input.order import Order
from uniface_jax.data.input.shuffle import shuffled, uniforms
from uniface_jax.errors import UserError

_SAMPLES_AT_ONCE = 4096  # that are looked up: array operations on fewer are mostly overhead


@dataclass(frozen=True)
class Sampler:
    """Seeded order of a run, and the part of it that this process gets.

    Attributes:
        batch_size: images of a step, of all processes together.
        seed: decides the order of every epoch and the random numbers of every sample.
        process_index: which contiguous part of each batch this process holds.
        process_count: the number of processes, a divisor of batch_size.
        drop_last: leave out the records of each epoch that fill no batch, others in every epoch.
        order: how often an epoch holds each record; None is each once.

    Raises:
        UserError: batch_size is not a positive multiple of process_count.

    Example:
        >>> samples, records = Sampler(batch_size=4, seed=0).indices(step=1, num_examples=6)
        >>> samples  # the second batch begins in the first epoch and ends in the second
        array([4, 5, 6, 7])
        >>> bool(((0 <= records) & (records < 6)).all())
        True
    """

    batch_size: int
    seed: int
    process_index: int = 0
    process_count: int = 1
    drop_last: bool = False
    order: Order | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UserError(
                f"batch_size {self.batch_size}: expected a positive multiple of the "
                f"{self.process_count} processes"
            )

    @property
    def local_batch_size(self) -> int:
        """Return B, the images of a step that this process holds."""
        return self.batch_size // self.process_count

    def indices(self, step: int | np.ndarray, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and records of this process's part of a step: int64 [B] each.

        Args:
            step: the number of the step, or several as int64 [S], for results of [S, B].
            num_examples: N, the records of the data set.

        Returns:
            samples, the run's running number k, and records, 0..N-1, each exactly once an epoch, or
            as `order` has it, and with `drop_last` at most so often.

        Raises:
            UserError: with `drop_last`, where the data set does not fill one batch.
        """
        draws = self.order.length if self.order else num_examples
        length = draws
        if self.drop_last:
            length -= draws % self.batch_size
            if not length:
                raise UserError(
                    f"data.drop_last: {draws} images fill no batch of {self.batch_size}"
                )
        local = self.local_batch_size
        begins = np.asarray(step, np.int64)[..., None] * self.batch_size
        samples = begins + self.process_index * local + np.arange(local, dtype=np.int64)
        epochs, positions = np.divmod(samples, length)
        if self.order:
            return samples, self.order.records(positions, self.seed, epochs)
        return samples, shuffled(positions, num_examples, self.seed, epochs)

    def stream(
        self, step: int, num_examples: int, numbers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for `step` and all after it the records and their random numbers.

        Args:
            step: the first one.
            num_examples: N, the records of the data set.
            numbers: how many random numbers a sample gets.

        Yields:
            Records, int64 [B], and float32 [B, numbers], uniform in 0 ≤ u < 1.
        """
        at_once = max(1, _SAMPLES_AT_ONCE // self.local_batch_size)
        while True:
            samples, records = self.indices(np.arange(step, step + at_once), num_examples)
            yield from zip(records, uniforms(samples, numbers, self.seed), strict=True)
            step += at_once
