"""A small IJB-C directory without images, and features for it."""

import numpy as np
from make_synthetic_ijbc import make


def make_ijb(folder):
    """Writes the directory; returns it and its features [N, 24]."""
    make(folder, scale=0.004, dimension=24)
    return folder, np.load(folder / "features.npy")
