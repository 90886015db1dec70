"""ViT with keypoint relative position encoding (KP-RPE), as in CVLface (models/vit_kprpe).

Kim et al., "KeyPoint Relative Position Encoding for Face Recognition", CVPR 2024. What a patch i
adds to its attention to a patch j depends on the offset from j to i, in 49 buckets, and on where i
lies among the face's five landmarks: the logits get B[h, i, bucket(i, j)], B a linear function of
the offsets from the landmarks to i. Module names are those of the PyTorch code.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.data.formats.landmarks import POINTS, TEMPLATE, from_pixels
from uniface_jax.errors import UserError
from uniface_jax.models.layers import at_least_float32
from uniface_jax.models.vit import Transformer

# The networks that CVLface names base and small.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "vit_kprpe_small": dict(depth=12, heads=8, mlp_ratio=5),
    "vit_kprpe_base": dict(depth=24, heads=16, mlp_ratio=3),
}
LANDMARKS = ("data", "template")  # where those of an image come from, see KPRPE
# iRPE's piecewise index (Wu et al., ICCV 2021, eq. 18): exact to ALPHA, logarithmic behind it.
ALPHA, BETA, GAMMA = 1.9, 3.8, 15.2
SIDE = 2 * int(BETA) + 1  # buckets of rows, and of columns
BUCKETS = SIDE**2


def piecewise_index(offset: np.ndarray) -> np.ndarray:
    """Return the bucket, -3..3, of offsets in patches, integers of any shape.

    >>> piecewise_index(np.array([-13, -4, -3, -1, 0, 2, 3, 4])).tolist()
    [-3, -3, -2, -1, 0, 2, 2, 3]
    """
    distance = np.maximum(np.abs(offset), 1)
    far = ALPHA + np.log(distance / ALPHA) / math.log(GAMMA / ALPHA) * (BETA - ALPHA)
    far = np.minimum(np.round(far), BETA).astype(np.int64)
    return np.where(np.abs(offset) <= ALPHA, offset, np.sign(offset) * far)


def bucket_ids(side: int) -> np.ndarray:
    """Return the bucket of each pair of patches i, j of a grid of side x side: int64 [N, N].

    The product of the buckets of their rows and columns: 0..48.

    >>> bucket_ids(2).tolist()
    [[24, 23, 17, 16], [25, 24, 18, 17], [31, 30, 24, 23], [32, 31, 25, 24]]
    """
    row, column = np.divmod(np.arange(side**2), side)
    by_row, by_column = (
        piecewise_index(place[:, None] - place[None]) + SIDE // 2 for place in (row, column)
    )
    found: np.ndarray = by_row * SIDE + by_column
    return found


def offsets(landmarks: jax.Array, side: int, share: float) -> jax.Array:
    """Return where patches lie as seen from landmarks [B, 5, 2]: [B, side**2, 10].

    x and y from each landmark to the center of each patch, row by row; share: of the image's side
    that a patch has, 0..1.
    """
    centers = (np.arange(side) + 0.5) * share
    x, y = np.meshgrid(centers, centers)
    grid = np.stack([x, y], axis=-1).reshape(1, -1, 1, 2)
    return (jnp.asarray(grid, landmarks.dtype) - landmarks[:, None]).reshape(
        landmarks.shape[0], -1, 2 * POINTS
    )


class KeypointBias(NamedTuple):
    """Bias of one block's attention, by what it is made of (vit.LogitBias).

    offsets: [B, N, 10], or [1, N, 10] for all images. weight [10, heads * 49] and bias
    [heads * 49]: the block's part of the linear function.
    """

    offsets: jax.Array
    weight: jax.Array
    bias: jax.Array

    def logits(self) -> jax.Array:
        """Return B[h, i, bucket(i, j)]: [B, heads, N, N]."""
        table = self.offsets @ self.weight + self.bias[None, None]  # [B, N, heads * 49]
        side = math.isqrt(table.shape[1])
        return expanded(table.reshape(*table.shape[:2], -1, SIDE, SIDE), side)


def expanded(table: jax.Array, side: int) -> jax.Array:
    """Return table[b, i, h, row bucket, column bucket of (i, j)]: [B, heads, N, N].

    table: [B, N, heads, 7, 7], N = side**2. By two products with zeros and ones, first over the
    column buckets and then over the row buckets: lookups would be gathers, whose gradients are
    scatters, slow on CPUs and of no fixed order on GPUs.
    """
    batch, tokens, heads = table.shape[:3]
    place = np.arange(side)
    index = piecewise_index(place[:, None] - place[None]) + SIDE // 2
    chosen = jnp.asarray(np.eye(SIDE)[index], table.dtype)  # [place of i, place of j, bucket]
    by_place = table.reshape(batch, side, side, heads, SIDE, SIDE)
    columns = jnp.einsum("brchuv,cdv->brchud", by_place, chosen)
    found = jnp.einsum("brchud,rsu->bhrcsd", columns, chosen)
    return found.reshape(batch, heads, tokens, tokens)


class KPRPE(Transformer):
    """Images [B, S, S, 3] in [-1, 1] (RGB) -> features [B, embedding_size], float32 at least.

    landmarks: "data", where every image comes with its own, or "template": those of the template
    to which faces are aligned, for all images.
    All others: see Transformer.
    """

    landmarks: str = "data"

    @property
    def takes_landmarks(self) -> bool:
        """Return True where features depend on each image's own landmarks."""
        return self.landmarks == "data"

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, landmarks: jax.Array | None = None
    ) -> jax.Array:
        """Map images [B, S, S, 3] to features [B, embedding_size]; train: as in BatchNorm.

        landmarks: [B, 5, 2], x and y, 0..1 over the image. Raises ValueError where they are
        missing, or given to a network that has the template's.
        """
        if not self.is_initializing() and self.takes_landmarks != (landmarks is not None):
            given = "no landmarks" if landmarks is None else f"landmarks {landmarks.shape}"
            raise ValueError(f"{given} for a network of the {self.landmarks}'s")
        x = self.tokens(images)
        return self.features(
            self.blocks(x, train, "einsum", self._biases(images, landmarks)), train
        )

    def _biases(self, images: jax.Array, landmarks: jax.Array | None) -> list[KeypointBias]:
        """Return the bias of each block's attention."""
        wide = at_least_float32(self.dtype)  # bfloat16 would move landmarks by half a pixel
        given = from_pixels(TEMPLATE)[None] if landmarks is None else landmarks
        share = self.patch / images.shape[1]
        seen = offsets(jnp.asarray(given, wide), images.shape[1] // self.patch, share)
        width = self.heads * BUCKETS
        linear = _KeypointLinear(width * self.depth, name="keypoint_linear")
        weight, bias = (jnp.asarray(x, wide) for x in linear())
        parts = [slice(index * width, (index + 1) * width) for index in range(self.depth)]
        return [KeypointBias(seen, weight[:, part], bias[part]) for part in parts]


class _KeypointLinear(nn.Module):
    """Parameters of the linear function of offsets, zeros at first, for all heads of all blocks."""

    features: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.zeros, (2 * POINTS, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


def create_kprpe(name: str, **overrides: Any) -> KPRPE:
    """Return the network `name` of VARIANTS with fields of KPRPE replaced by `overrides`.

    Raises UserError for heads that do not divide dim.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    settings = dict(dim=512, patch=8, drop_path=0.1, **VARIANTS[name])
    network = KPRPE(**{**settings, **given})
    if network.dim % network.heads:
        raise UserError(f"model.kprpe.heads={network.heads}: must divide {name}'s {network.dim}")
    return network
