"""A small IJB-C directory without images, and features for it."""

import sys

import numpy as np
from paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from make_synthetic_ijbc import make


def make_ijb(folder):
    """Writes the directory; returns it and its features [N, 24]."""
    make(folder, scale=0.004, dimension=24)
    return folder, np.load(folder / "features.npy")
