"""Intervals of all pairs of people, from the pairs of as many of them as can be held.

Of a set with too many pairs some people are looked at, but as many are drawn again as the whole set
has (the bag of little bootstraps): what resamples spread by is what the whole set's numbers do, and
stands about these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, PEOPLE, Resampling, Units
from uniface_jax.evaluate.metrics.identification_intervals import Resampled
from uniface_jax.evaluate.metrics.pair_intervals import tar_intervals
from uniface_jax.evaluate.metrics.pair_totals import CrossedTotals
from uniface_jax.evaluate.metrics.tar_replicates import UnitScores
from uniface_jax.evaluate.metrics.verification import normalize

MAX_PAIRS = 1 << 23  # that are held: 100 MB
_BLOCK_ROWS = 512
