"""Cost of a search among all pairs, forecast before it begins."""

import time
from dataclasses import dataclass

import numpy as np

from uniface_jax.evaluate.all_pairs.above import BLOCK_IMAGES, count_products, pairs_above
from uniface_jax.evaluate.all_pairs.tiles import Tiling

_PROBED_ROWS = 4096  # of random features, by which the rate is measured
_SIDES = 3  # a block, another one, and what is made of them: in memory at a time


@dataclass(frozen=True)
class Cost:
    """Forecast: products of two features, seconds at a measured rate, and bytes held in memory."""

    products: int
    width: int
    seconds: float
    memory: int

    def describe(self) -> str:
        """Return it in one line.

        >>> Cost(882_000_000_000_000, 512, 36_000.0, 1 << 30).describe()
        '8.8e+14 products of 512 numbers, about 10.0 h, 1.0 GiB'
        """
        time_left = (
            f"{self.seconds / 3600:,.1f} h" if self.seconds >= 3600 else f"{self.seconds:,.0f} s"
        )
        return (
            f"{self.products:.1e} products of {self.width} numbers, about {time_left}, "
            f"{self.memory / 2**30:.1f} GiB"
        )


def measure_rate(width: int, tiling: Tiling = Tiling()) -> float:
    """Return the products of features of `width` numbers a second that this machine computes."""
    features = np.random.default_rng(0).standard_normal((_PROBED_ROWS, width)).astype(np.float32)
    for _ in pairs_above(features, bound=0.99, tiling=tiling):  # which compiles
        pass
    begin = time.perf_counter()
    for _ in pairs_above(features, bound=0.99, tiling=tiling):
        pass
    return count_products(_PROBED_ROWS) / (time.perf_counter() - begin)


def forecast(images: int, width: int, rate: float, others: int | None = None) -> Cost:
    """Return the cost of pairs_above for so many images, at so many products a second.

    >>> forecast(42_000_000, 512, 1e11).describe()
    '8.8e+14 products of 512 numbers, about 2.4 h, 1.3 GiB'
    """
    products = count_products(images, others)
    kept = 2 * 24 * images  # pairs of duplicates.nearest_pairs, at most
    blocks = _SIDES * 4 * width * min(images, BLOCK_IMAGES)
    return Cost(products, width, products / rate, kept // 2 + blocks)
