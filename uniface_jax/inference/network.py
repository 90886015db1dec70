"""A trained network as a function from uint8 images to features, on all devices of this process."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.config import create_network, from_json
from uniface_jax.models.iresnet import IResNet
from uniface_jax.runtime.xla_flags import compiler_options

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Embedder:
    """embed: images [B, 112, 112, 3] uint8 RGB -> features [B, D] float32, not normalised.

    plain: the same without the mirrored images. step: training steps that the network has seen.
    digest: SHA-256 of its parameters.
    """

    embed: Callable[[np.ndarray], np.ndarray]
    plain: Callable[[np.ndarray], np.ndarray]
    step: int
    digest: str


def make_embed(
    network: IResNet, mirror: bool = True
) -> Callable[[Variables, np.ndarray], np.ndarray]:
    """(variables, images [B, 112, 112, 3] uint8) -> features [B, D] float32.

    With `mirror`, the release's f(x) + f(mirrored x). B is split over this process's devices (and
    padded for that); each new B is compiled once.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    @partial(jax.jit, compiler_options=compiler_options())
    def forward(variables: Variables, images: jax.Array) -> jax.Array:
        scaled = models.normalize(images)
        if mirror:
            return models.mirror_sum(network, variables, scaled)
        return network.apply(variables, scaled, train=False)  # type: ignore[return-value]

    def embed(variables: Variables, images: np.ndarray) -> np.ndarray:
        count = images.shape[0]
        filler = -count % mesh.size
        padded = np.pad(images, [(0, filler), (0, 0), (0, 0), (0, 0)])
        placed = jax.device_put(variables, everywhere)
        features = forward(placed, jax.device_put(padded, split))
        return np.asarray(features, np.float32)[:count]

    return embed


def digest_of(variables: Variables) -> str:
    """SHA-256 over all arrays by name, as hexadecimal."""
    total = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(variables):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def load_network(path: str | Path) -> tuple[IResNet, Variables, dict[str, Any]]:
    """Network (computing in float32), variables and {"step", "digest"} of a workdir or checkpoint.

    Raises UserError where there is no readable checkpoint.
    """
    step, variables, run = reading.read_network(path)
    network = create_network(from_json(run["config"]), dtype="float32")
    return network, variables, {"step": step, "digest": digest_of(variables)}


def load_embedder(path: str | Path, mirror: bool = True) -> Embedder:
    """The embedder of a workdir's newest checkpoint, or of one workdir/checkpoints/STEP."""
    network, variables, info = load_network(path)
    on_device = jax.tree.map(jnp.asarray, variables)
    plain = partial(make_embed(network, mirror=False), on_device)
    embed = partial(make_embed(network, mirror=True), on_device) if mirror else plain
    return Embedder(embed, plain, info["step"], info["digest"])
