"""Feature sources for tests: a model made of a few pixels, and features that are set by hand."""

import numpy as np

from uniface_jax.evaluate.features import ComputedFeatures, Features
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.files.own_folder import KnownDigests
from uniface_jax.inference.model import Model


def corners(batch):
    """Four pixels of each image, so that mirrored images differ: float32 [B, 12]."""
    return batch[:, ::56, ::56].reshape(len(batch), -1).astype(np.float32) - 127.5


def corners_both(batch):
    return corners(batch) + corners(batch[:, :, ::-1])


MODEL = Model(corners_both, "corners", "0" * 64, "twelve pixels", corners)


def computed_features(folder, model=MODEL, batch_size=8):
    """The features that `model` computes, kept in `folder` and known in a folder in it."""
    cache = FeatureCache(folder, KnownDigests(folder / "known"))
    return ComputedFeatures(model, cache, batch_size, FileDigests(folder / "known"))


class FixedFeatures:
    """The same features [N, D] for whatever set is asked for."""

    name, hash, description = "fixed", "1" * 64, "fixed features"

    def __init__(self, values, plain=None):
        self.values, self.plain = values, plain
        self.asked = []

    def features(self, images, *, apart=False, listed=None):
        self.asked.append(images)
        return Features(self.values, self.plain, {"sha256": "2" * 64, "features": "fixed"})
