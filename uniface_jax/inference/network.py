"""A trained network as a function from uint8 images to features, on all devices of this process."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.config import create_network, of_run
from uniface_jax.errors import UserError
from uniface_jax.inference import fused
from uniface_jax.inference.mirror import mirror_sum
from uniface_jax.inference.model import Model, QualityHead
from uniface_jax.inference.parts import in_parts
from uniface_jax.models.convolution import native_kernels
from uniface_jax.runtime.parallel import compiled_for
from uniface_jax.runtime.xla_flags import compiler_options

Variables = Mapping[str, Any]
# (variables, images uint8 RGB [B, 112, 112, 3], and landmarks float32 [B, 5, 2] for a network that
# takes them) -> features float32 [B, D], not normalized.
EmbedWith = Callable[..., np.ndarray]
IMAGES_AT_A_TIME = 16  # of networks without fused kernels, on a CPU


def make_embed(network: models.Network, mirror: bool = True) -> EmbedWith:
    """Return the function from variables and images to features, with the mirror sum or without.

    The images are split over this process's devices (and padded for that); each new number of them
    is compiled once. On one CPU device an IR-ResNet is computed by fused kernels (inference.fused),
    and every network a few images at a time, whatever their number.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    # XLA splits no kernel of others over several devices.
    alone = mesh.size == 1
    fusing = alone and fused.suits(network)
    few = alone and not fusing and jax.default_backend() == "cpu"

    @partial(jax.jit, compiler_options=compiler_options())
    def forward(variables: Variables, images: jax.Array, *landmarks: jax.Array) -> jax.Array:
        plain = partial(fused.features if fusing else models.features, network, variables)
        features = in_parts(plain, IMAGES_AT_A_TIME) if few else plain
        with native_kernels(alone):  # while it is traced
            return (mirror_sum(features) if mirror else features)(
                models.normalize(images), *landmarks
            )

    programs: dict[Any, Any] = {}  # by the shapes of what they take

    def embed(variables: Variables, *inputs: np.ndarray) -> np.ndarray:
        count = inputs[0].shape[0]
        padded = [
            np.pad(x, [(0, -count % mesh.size), *((0, 0) for _ in x.shape[1:])]) for x in inputs
        ]
        given = (jax.device_put(variables, everywhere), *jax.device_put(padded, split))
        leaves, treedef = jax.tree.flatten(given)
        kind = (treedef, *(leaf.aval for leaf in leaves))
        if kind not in programs:
            programs[kind] = compiled_for(forward, *given)
        features = programs[kind](*given)
        return np.asarray(features, np.float32)[:count]

    return embed


def digest_of(variables: Variables) -> str:
    """Return the SHA-256 over all arrays by name, as hexadecimal."""
    total = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(variables):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def load_network(
    path: str | Path, weights: str = "raw"
) -> tuple[models.Network, Variables, dict[str, Any]]:
    """Load network (computing in float32), variables and facts of a checkpoint.

    The facts are `step`, `digest`, the `workdir` and `run`, the checkpoint's record of its config
    and data.

    Args:
        path: a workdir, whose newest checkpoint is read, or one workdir/checkpoints/STEP.
        weights: "raw", or "ema" for the mean of the weights that config.optim.ema keeps.

    Raises:
        UserError: there is no readable checkpoint, or no mean of the weights in it.
    """
    step, variables, run = reading.read_network(path, weights)
    workdir, _ = reading.locate(path)
    network = create_network(of_run(run, path, workdir), dtype="float32")
    _check_fits(network, variables, path)
    facts = {"step": step, "digest": digest_of(variables), "workdir": workdir, "run": run}
    return network, variables, facts


def with_template(network: models.Network, path: str | Path) -> models.Network:
    """Return a network that takes landmarks with those of the template instead, for all images.

    Raises UserError, naming `path`, for one that takes none.
    """
    if not isinstance(network, models.KPRPE):
        raise UserError(f"landmarks=template: the network of {path} takes no landmarks")
    return network.clone(landmarks="template")


def _check_fits(network: models.Network, variables: Variables, path: str | Path) -> None:
    """Raise UserError unless the network takes these variables; nothing is computed."""
    shapes = [(1, models.IMAGE_SIZE, models.IMAGE_SIZE, 3), (1, 5, 2)]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    given = inputs if models.takes_landmarks(network) else inputs[:1]
    try:
        jax.eval_shape(partial(models.features, network), variables, *given)
    except Exception as e:  # flax's, JAX's or the network's own
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{path}: its arrays are not those of its config's network ({reason})"
        ) from e


def load_workdir(
    path: str | Path, mirror: bool = True, landmarks: str = "data", weights: str = "raw"
) -> Model:
    """Load the model of a workdir's newest checkpoint, or of one workdir/checkpoints/STEP.

    With `mirror`, features are the mirror sum. landmarks: "data", or "template" for those of the
    template in place of each image's own. weights: as load_network. Raises UserError as
    load_network, and for "template" with a network that takes no landmarks.
    """
    chosen = {} if weights == "raw" else {"weights": weights}
    network, variables, info = load_network(path, **chosen)
    if landmarks == "template":
        network = with_template(network, path)
    on_device = jax.tree.map(jnp.asarray, variables)
    points = f", landmarks: {network.landmarks}" if isinstance(network, models.KPRPE) else ""
    plain = partial(make_embed(network, mirror=False), on_device)
    embed = partial(make_embed(network, mirror=True), on_device) if mirror else plain
    of_step = info["workdir"] / reading.FOLDER / str(info["step"])
    head = reading.read_quality(of_step, weights)
    quality = None
    if head is not None:
        quality = QualityHead(head["kernel"], float(head["bias"]), 2 if mirror else 1)
    return Model(
        embed=embed,
        name=Path(path).resolve().name,
        hash=info["digest"],
        description=f"workdir at step {info['step']}{'' if weights == 'raw' else f' ({weights})'}, "
        f"mirror sum: {'yes' if mirror else 'no'}{points}",
        plain=plain if mirror else None,
        takes_landmarks=models.takes_landmarks(network),
        quality=quality,
    )
