"""Order of an epoch in which not every record comes up once: some sets, or classes, more often.

The records are in groups, and each group has a quota: how many draws of an epoch are of it. An
epoch is a permutation of all draws, computed on the spot (shuffle.py). The draws of one group, of
all epochs in a row, go through permutations of its records, one after the other: a group of which
an epoch takes half is seen whole in two, and no record is drawn twice before all others were drawn.
So the record of a draw follows from its epoch and its position alone, as in the plain order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uniface_jax.data.input.shuffle import shuffled

MAX_DRAWS = 2**40  # of an epoch
_GROUP_SHIFT = 40  # bits, above which the key of a permutation has its group


@dataclass(frozen=True)
class Order:
    """Quotas of groups of records; the records of a group lie one after the other, or in a table.

    Attributes:
        begins: int64 [G + 1], where the records of each group begin, and the end of the last.
        quotas: int64 [G], >= 0, the draws of each group in an epoch; 0 where it has no records.
        table: integers [N], the records group by group, to which `begins` refers; None where they
            lie so.

    Example:
        >>> order = Order.of_groups([4, 2], [2, 4])  # half of four records, and two of them twice
        >>> epoch = order.records(np.arange(6), seed=0, epochs=np.zeros(6, np.int64))
        >>> int((epoch < 4).sum()), sorted(epoch[epoch >= 4].tolist())
        (2, [4, 4, 5, 5])
    """

    begins: np.ndarray
    quotas: np.ndarray
    table: np.ndarray | None = None

    @classmethod
    def of_groups(cls, sizes: Sequence[int], quotas: Sequence[int]) -> "Order":
        """Return the order of groups of so many records, one after the other."""
        begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return cls(begins, np.array(quotas, np.int64))

    @cached_property
    def _drawn(self) -> np.ndarray:
        """Return where the draws of each group begin, and their number: int64 [G + 1]."""
        return np.concatenate([[0], np.cumsum(self.quotas, dtype=np.int64)])

    @property
    def length(self) -> int:
        """Return L, the draws of an epoch."""
        return int(self._drawn[-1])

    def records(self, positions: np.ndarray, seed: int, epochs: np.ndarray) -> np.ndarray:
        """Return the records at `positions`, integers in 0..L-1, of the epochs: int64.

        epochs: integers of the same shape.
        """
        draws = shuffled(positions, self.length, seed, epochs)
        groups = np.searchsorted(self._drawn, draws, side="right") - 1
        turns = epochs * self.quotas[groups] + (draws - self._drawn[groups])
        sizes = self.begins[groups + 1] - self.begins[groups]
        passes, places = np.divmod(turns, sizes)
        keys = passes + ((groups + 1) << _GROUP_SHIFT)
        found: np.ndarray = self.begins[groups] + shuffled(places, sizes, seed, keys)
        return found if self.table is None else self.table[found].astype(np.int64)
