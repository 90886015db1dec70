"""Small networks with random statistics that look trained, built without compiling anything."""

from functools import cache

import jax
import numpy as np

from uniface_jax import models

SMALL = {"width": 8, "embedding_size": 16, "stem_stride": 2}
# One network of each form that the other families have.
SMALL_OTHERS = {
    "vit_t": {"dim": 32, "depth": 2, "heads": 4, "embedding_size": 16},
    "mbf": {"blocks": (1, 2, 1, 1), "scale": 1, "embedding_size": 16},
    "mbf_large": {"blocks": (2, 1, 1, 1), "scale": 1, "embedding_size": 16},
}


@cache
def shapes_of(network):
    """Parameters and statistics of a network, without values; traced once."""
    return jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))


def trained_looking(network, seed=0):
    """Weights of unit gain; statistics, scales, biases and slopes all unlike 0 and 1."""
    rng = np.random.default_rng(seed)
    params, statistics = shapes_of(network)

    def leaf(path, array):
        shape = array.shape
        match path[-1].key:
            case "var" | "scale":
                values = rng.uniform(0.6, 1.6, shape)
            case "mean" | "bias":
                values = rng.normal(0, 0.3, shape)
            case "slope":
                values = rng.uniform(-0.2, 0.6, shape)
            case "kernel":
                values = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
            case "pos_embed" | "mask_token":
                values = rng.normal(0, 0.5, shape)
        return values.astype(np.float32)

    tree = {"params": params, "batch_stats": statistics}
    return jax.tree_util.tree_map_with_path(leaf, tree)


def feature_function(name, **overrides):
    """Images -> features of a trained-looking network."""
    network = models.create(name, **overrides)
    variables = trained_looking(network)
    return lambda images: network.apply(variables, images, train=False)
