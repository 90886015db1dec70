"""A test that two data sets hold the same images, in any order, with neither in memory.

A multiset of (label, bytes) is the sum of its elements' SHA-256 modulo 2^256: Clarke et al.,
"Incremental multiset hash functions", ASIACRYPT 2003 (MSet-Add-Hash), without a key, since copying
errors and not forgery are to be found. The sums are kept in 256 buckets by the images' digests, so
that a difference can be looked for in one of them.
"""

import hashlib
from dataclasses import dataclass, field

BUCKETS = 256
_MODULUS = 1 << 256


def image_digests(image: bytes, label: int) -> tuple[bytes, int]:
    """Return the SHA-256 of the bytes, and the element of (label, bytes): 0..2^256-1."""
    state = hashlib.sha256(image)
    digest = state.digest()
    state.update(label.to_bytes(8, "little"))
    return digest, int.from_bytes(state.digest(), "little")


@dataclass
class Multiset:
    """Number of images and the sum of their elements, by bucket.

    Example:
        >>> here, there = Multiset(), Multiset()
        >>> for image, label in ((b"ann", 0), (b"bob", 1)):
        ...     here.add(image, label)
        >>> for image, label in ((b"bob", 1), (b"ann", 0)):
        ...     there.add(image, label)
        >>> here.total() == there.total(), here.differing(there)
        (True, [])
    """

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    sums: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, image: bytes, label: int) -> None:
        """Add one image."""
        digest, element = image_digests(image, label)
        self.counts[digest[0]] += 1
        self.sums[digest[0]] += element

    def merge(self, other: "Multiset") -> None:
        """Add all images of `other`."""
        for bucket in range(BUCKETS):
            self.counts[bucket] += other.counts[bucket]
            self.sums[bucket] += other.sums[bucket]

    def total(self) -> tuple[int, int]:
        """Return the number of images, and the sum of their elements modulo 2^256."""
        return sum(self.counts), sum(self.sums) % _MODULUS

    def differing(self, other: "Multiset") -> list[int]:
        """Return the buckets in which the two are not the same."""
        mine, others = (
            zip(self.counts, self.sums, strict=True),
            zip(other.counts, other.sums, strict=True),
        )
        return [
            bucket
            for bucket, pair in enumerate(zip(mine, others, strict=True))
            if pair[0] != pair[1]
        ]
