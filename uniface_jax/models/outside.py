"""Networks from outside: any Flax Linen module from images to features, called as IResNet is."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from uniface_jax.errors import UserError
from uniface_jax.models.layers import at_least_float32

COLLECTIONS = ("params", "batch_stats")  # that training, checkpoints and exports carry


@dataclass(frozen=True)
class Outside:
    """A module images [B, 112, 112, 3] -> features [B, embedding_size], with the calls of IResNet.

    The module's `__call__` may take `train` or not. Its features become float32 at least. In
    training it may draw from the rng stream "dropout" or any other.
    """

    name: str
    module: nn.Module
    embedding_size: int

    def init(self, rngs: Any, images: jax.Array, *, train: bool) -> Mapping[str, Any]:
        """Return the module's first variables, as nn.Module.init does."""
        variables: Mapping[str, Any] = self.module.init(rngs, images, **self._mode(train))
        return variables

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool,
        mutable: Any = False,
        rngs: Mapping[str, jax.Array] | None = None,
    ) -> Any:
        """Return the features and, with `mutable`, the variables that changed, as nn.Module.apply.

        A stream that is not in `rngs` draws from the one called "dropout".
        """
        if rngs is not None:
            rngs = {"params": rngs["dropout"], **rngs}  # Flax's stream for names without one
        returned: Any = self.module.apply(
            variables, images, mutable=mutable, rngs=rngs, **self._mode(train)
        )
        if mutable is False:
            return _widened(returned)
        features, updated = returned
        return _widened(features), updated

    def checked(self, image_size: int) -> "Outside":
        """Return this network, once it is known to be one; nothing is computed.

        Raises UserError where features are not [B, embedding_size], variables are in other
        collections than COLLECTIONS, or one of them is not float32.
        """
        images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
        mode = self._mode(False)
        features, variables = jax.eval_shape(
            lambda x: self.module.init_with_output(jax.random.key(0), x, **mode), images
        )
        shape = getattr(features, "shape", type(features).__name__)
        if shape != (2, self.embedding_size) or not jnp.issubdtype(features.dtype, jnp.floating):
            raise UserError(
                f"model.name={self.name!r}: gives {shape} for two images, expected features "
                f"{(2, self.embedding_size)} of model.embedding_size"
            )
        if other := [key for key in variables if key not in COLLECTIONS]:
            raise UserError(
                f"model.name={self.name!r}: has variables in {other[0]!r}; training keeps "
                f"{' and '.join(COLLECTIONS)} alone"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            if leaf.dtype != jnp.float32:
                raise UserError(
                    f"model.name={self.name!r}: {jax.tree_util.keystr(path)} is {leaf.dtype}; "
                    "variables must be float32, whatever the dtype of the computation"
                )
        return self

    def _mode(self, train: bool) -> dict[str, Any]:
        parameters = inspect.signature(type(self.module).__call__).parameters
        return {"train": train} if "train" in parameters else {}


def _widened(features: jax.Array) -> jax.Array:
    return features.astype(at_least_float32(features.dtype))
