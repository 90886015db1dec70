"""The networks by name, and what every one of them takes and gives.

A network maps images [B, 112, 112, 3], float in [-1, 1], RGB, to features [B, D]:
`network.apply(variables, images, train=False)`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from uniface_jax.data.formats.image_size import IMAGE_SIZE as IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.models.iresnet import IResNet, kaiming_linear

_RELEASE: Mapping[str, Any] = dict(
    strided_kernel=2, shortcut_kernel=2, tail_bias=False, zero_last_scale=True,
    kernel_init=kaiming_linear, dropout=0.4,
)  # fmt: skip
_INSIGHTFACE: Mapping[str, Any] = dict(
    strided_kernel=3, shortcut_kernel=1, tail_bias=True, zero_last_scale=False,
    kernel_init=nn.initializers.normal(0.1), dropout=0.0,
)  # fmt: skip

# Name -> (the family's settings, blocks in each of the four stages).
NETWORKS: Mapping[str, tuple[Mapping[str, Any], tuple[int, ...]]] = {
    "lresnet18": (_RELEASE, (2, 2, 2, 2)),
    "lresnet50": (_RELEASE, (3, 4, 14, 3)),
    "lresnet100": (_RELEASE, (3, 13, 30, 3)),
    "lresnet200": (_RELEASE, (3, 33, 60, 3)),
    "iresnet18": (_INSIGHTFACE, (2, 2, 2, 2)),
    "iresnet34": (_INSIGHTFACE, (3, 4, 6, 3)),
    "iresnet50": (_INSIGHTFACE, (3, 4, 14, 3)),
    "iresnet100": (_INSIGHTFACE, (3, 13, 30, 3)),
    "iresnet200": (_INSIGHTFACE, (6, 26, 60, 6)),
}


def create(name: str, **overrides: Any) -> IResNet:
    """The network `name` with fields of IResNet replaced by `overrides` (None: the family's own).

    Raises UserError for a name that is not in NETWORKS.
    """
    if name not in NETWORKS:
        raise UserError(f"model.name={name!r}: allowed are {', '.join(NETWORKS)}")
    family, stage_sizes = NETWORKS[name]
    given = {key: value for key, value in overrides.items() if value is not None}
    return IResNet(**{**family, "stage_sizes": stage_sizes, **given})


def normalize(images: jax.Array) -> jax.Array:
    """uint8 images in 0..255 -> float32 in [-1, 1]: (x - 127.5) / 127.5."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def initialize(network: IResNet, key: jax.Array) -> tuple[Any, Any]:
    """Random parameters and neutral statistics (mean 0, variance 1): (params, batch_stats)."""
    images = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
    variables = network.init(key, images, train=False)
    return variables["params"], variables["batch_stats"]


def features(network: IResNet, variables: Any, images: jax.Array) -> jax.Array:
    """Return the features [B, D] of images [B, 112, 112, 3] in [-1, 1], as at test time."""
    found = network.apply(variables, images, train=False)
    assert isinstance(found, jax.Array)
    return found
