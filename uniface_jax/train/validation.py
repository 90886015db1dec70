"""Verification while a network trains: the sets of config.eval.data, shared by all processes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from uniface_jax import models
from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.data.sources.opening import split_training_sets
from uniface_jax.evaluate.metrics.verification import (
    base_rate,
    is_balanced,
    verification_metrics,
)
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs, open_pair_sets, with_images
from uniface_jax.files.paths import split_parts
from uniface_jax.inference.extract import Face, check_headers, extract
from uniface_jax.inference.network import Variables, make_embed
from uniface_jax.runtime import processes
from uniface_jax.train.from_config import Recipe


def _open_sets(config: ConfigDict) -> dict[str, OpenedPairs]:
    """Open the sets of config.eval.data; a list's images are in root=, near it or in data.train."""
    parts = split_parts(config.eval.data)
    roots = [part.removeprefix("root=") for part in parts if part.startswith("root=")]
    files = [Path(part) for part in parts if not part.startswith("root=")]
    root = Path(roots[-1]) if roots else None
    return open_pair_sets(files, root, [*map(Path, split_training_sets(config.data.train))])


class Evaluator:
    """Verification on the sets of config.eval.data, with one compiled forward pass for all."""

    def __init__(self, recipe: Recipe) -> None:
        config = recipe.config
        opened = _open_sets(config)
        self.sets = {name: with_images(found) for name, found in opened.items()}
        self._landmarks: dict[str, np.ndarray] = {}
        if models.takes_landmarks(recipe.network):
            for name, found in opened.items():
                each = [found.images.landmarks(index) for index in range(len(found.images))]
                self._landmarks[name] = np.stack(each)
        # Before the first step: the first evaluation may be days away.
        for name, pairs in self.sets.items():
            check_headers(pairs.images, name)
        self._embed = make_embed(recipe.network)
        self._batch_size = config.eval.batch_size

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Compute metrics of the network with these host arrays: per set, and "auc", their mean."""
        placed = jax.tree.map(jnp.asarray, variables)
        values: dict[str, float] = {}
        for name, pairs in self.sets.items():
            metrics = verification_metrics(
                self._features(placed, pairs, name), pairs, folds=pairs.folds
            )
            values[f"{name}/auc"] = metrics["auc"]
            values[f"{name}/accuracy"] = metrics["accuracy"]["mean"]
            if not is_balanced(metrics):  # else the accuracy says more than it is
                values[f"{name}/base_rate"] = base_rate(metrics)
        aucs = [values[f"{name}/auc"] for name in self.sets]
        return {**values, "auc": float(np.mean(aucs))} if aucs else {}

    def _features(self, variables: Variables, pairs: PairSet, name: str) -> np.ndarray:
        """Compute features of all images; each process embeds a part of them."""
        images: Sequence[bytes] | Sequence[Face] = pairs.images
        if name in self._landmarks:
            images = [*map(Face, pairs.images, self._landmarks[name])]
        part = -(-len(images) // jax.process_count())
        start = min(jax.process_index() * part, len(images) - 1)  # at least one, where they are few
        features = extract(
            partial(self._embed, variables),
            images[start : start + part], name=name, batch_size=self._batch_size, progress=False,
            label=lambda index: pairs.label(start + index),
        )  # fmt: skip
        return processes.gather_rows(features, part)[: len(images)]
