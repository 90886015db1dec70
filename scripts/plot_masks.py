"""Draws the masks of config.data.augment.mask onto the mean of the demo's faces, which is nobody's.

python -m uniface_jax.demo_data runs/faces
python scripts/plot_masks.py runs/faces/train docs/images/masks.png
"""

import argparse
from pathlib import Path

import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.input.augment import Augment, augment, augmentations
from uniface_jax.data.input.shuffle import uniforms
from uniface_jax.data.sources.opening import open_source

ROWS, COLUMNS = 2, 8


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    source = open_source(args.data)
    faces = [images.decode(source[i].image, source[i].name) for i in range(len(source))]
    mean = np.rint(np.mean(faces, axis=0)).astype(np.uint8)
    functions = augmentations(Augment(flip=False, mask=1.0))
    count = sum(function.numbers for function in functions)
    numbers = uniforms(np.arange(ROWS * COLUMNS), count, args.seed).tolist()
    drawn = [mean] + [augment(mean, functions, row) for row in numbers[1:]]
    rows = [np.concatenate(drawn[i : i + COLUMNS], 1) for i in range(0, len(drawn), COLUMNS)]
    args.output.write_bytes(images.encode_png(np.concatenate(rows)))


if __name__ == "__main__":
    main()
