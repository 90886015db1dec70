"""Images that could not be used, of config.data.on_error = "skip": counted, and named once each."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from uniface_jax.data.sources.base import Source

MAX_NAMED = 20  # records; of a set with more the count says enough


class SkippedImages:
    """Counts the images of the whole run that others stood in for, an image each time it is drawn.

    total: those of all processes, up to the step that `total_of_all` was last asked for.
    """

    def __init__(self, source: Source, warn: Callable[[str], None]) -> None:
        self._source, self._warn = source, warn
        self._named: set[int] = set()
        self._new = 0
        self.total = 0

    def count(self, batch: Mapping[str, Any]) -> None:
        """Count those of one batch of this process; warn of each record when it first comes up."""
        records = batch["skipped"].tolist()
        self._new += len(records)
        for record in records:
            if record not in self._named and len(self._named) < MAX_NAMED:
                self._named.add(record)
                more = "; further ones are only counted" if len(self._named) == MAX_NAMED else ""
                self._warn(
                    f"{self._source.name}: record {record} cannot be used; another one stands in "
                    f"for it (config.data.on_error){more}"
                )

    def total_of_all(self) -> int:
        """Return the count of all processes. Every process must call this at the same step."""
        new = self._new
        if jax.process_count() > 1:
            new = int(np.sum(multihost_utils.process_allgather(np.asarray(new))))
        self.total, self._new = self.total + new, 0
        return self.total
