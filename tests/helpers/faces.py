"""Small images that are like faces in size and kind, in folders by identity."""

from pathlib import Path

import numpy as np

from uniface_jax.data.formats import images

COUNTS = {"s1": 7, "s2": 5, "s10": 11}  # 23 images, a prime, so that batches never fit an epoch


def make_faces(root: Path) -> None:
    """Write identity folders s1, s2, s10 with JPEG and PNG of 112x112, every image different."""
    random = np.random.RandomState(0)
    for identity, count in COUNTS.items():
        (root / identity).mkdir()
        for i in range(1, count + 1):
            pixels = random.randint(0, 256, (14, 14, 3))
            image = np.kron(pixels, np.ones((8, 8, 1))).astype(np.uint8)
            if i % 2:
                (root / identity / f"{i}.jpg").write_bytes(images.encode_jpeg(image))
            else:
                (root / identity / f"{i}.png").write_bytes(images.encode_png(image))
