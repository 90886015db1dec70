"""Weights and inputs of the networks of the second golden set, drawn by PyTorch parameter name.

What is drawn, and how, is in ../shared/golden2/README.md; names and shapes are those of the golden
file, which were read off the reference code.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.release_weights import draw
from uniface_jax import models
from uniface_jax.weights.names import TorchNetwork, layout, to_state

KINDS = {
    "linear.weight": lambda r, shape: r.standard_normal(shape) / np.sqrt(np.prod(shape[1:])),
    "linear.bias": lambda r, shape: r.normal(0, 0.1, shape),
    "norm.bias": lambda r, shape: r.normal(0, 0.1, shape),
    "norm.running_mean": lambda r, shape: r.normal(0, 0.1, shape),
    "norm.weight": lambda r, shape: r.uniform(0.7, 1.3, shape),
    "norm.running_var": lambda r, shape: r.uniform(0.6, 1.6, shape),
    "prelu": lambda r, shape: r.uniform(0.005, 0.5, shape),
    "embedding": lambda r, shape: r.normal(0, 0.5, shape),
}


def images(seed: int) -> np.ndarray:
    """The six images [6, 112, 112, 3] in [-1, 1]."""
    pixels = draw(seed, "images").integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)
    return (pixels / 255 - 0.5) / 0.5


def torch_state(
    golden: Mapping[str, Any], case: str, seed: int, network: TorchNetwork
) -> dict[str, np.ndarray]:
    """The reference's state dict, in float64: parameters of the golden file's names and shapes."""
    kinds = dict(zip(golden[f"{case}/param_names"], golden[f"{case}/param_kinds"], strict=True))
    shapes = dict(zip(golden[f"{case}/param_names"], golden[f"{case}/param_shapes"], strict=True))
    state = {}
    for name, kind in kinds.items():
        shape = tuple(int(n) for n in shapes[name].strip("[]").split(",") if n.strip())
        state[str(name)] = KINDS[str(kind)](draw(seed, f"w:{name}"), shape)
    slots = layout(network)
    for name in map(str, golden[f"{case}/buffer_names"]):
        if name.endswith(("running_mean", "running_var")):
            kind, shape = f"norm.{name.rsplit('.', 1)[1]}", slots[name].shape
            state[name] = KINDS[kind](draw(seed, f"w:{name}"), shape)
    return state


def variables(network: TorchNetwork, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The state dict as this project's variables, every tensor with a place and none without."""
    slots = layout(network)
    assert slots.keys() == state.keys()
    found: dict[str, Any] = {}
    for name, slot in slots.items():
        assert state[name].shape == slot.shape, name
        tree = found.setdefault(slot.collection, {})
        for key in slot.path[:-1]:
            tree = tree.setdefault(key, {})
        tree[slot.path[-1]] = jnp.asarray(slot.to_jax(state[name]))
    return found


def check_features(network: TorchNetwork, case: str, load: Any) -> dict[str, Any]:
    """Hold features of six images and their mirror images against the reference's; give weights."""
    golden = load("networks")
    weights = variables(network, torch_state(golden, case, load.seed, network))
    embed = jax.jit(partial(models.features, network, weights))
    pixels = images(load.seed)
    for key, x in (("eval_features", pixels), ("eval_features_flip", pixels[:, :, ::-1])):
        np.testing.assert_allclose(embed(x), golden[f"{case}/{key}"], rtol=1e-9, atol=1e-9)
    return weights


def check_training(network: TorchNetwork, case: str, load: Any, **inputs: Any) -> None:
    """Hold features, gradients and statistics of one training pass against the reference's."""
    golden = load("networks")
    weights = variables(network, torch_state(golden, case, load.seed, network))
    pixels, cotangent = images(load.seed), jnp.asarray(golden["cotangent"])

    def loss(params: Any) -> Any:
        found, updated = network.apply(
            {**weights, "params": params}, pixels, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)}, **inputs,
        )  # fmt: skip
        return jnp.sum(found * cotangent), (found, updated["batch_stats"])

    (value, (found, statistics)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        weights["params"]
    )
    np.testing.assert_allclose(found, golden[f"{case}/train_features"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(value, golden[f"{case}/loss"], rtol=1e-9)
    state = to_state(network, {"params": gradients, "batch_stats": statistics})
    names, norms = golden[f"{case}/param_names"], golden[f"{case}/grad_norms"]
    noise = 1e-9 * norms.max()  # gradients that vanish in truth are rounding in both
    for name, norm in zip(map(str, names), norms, strict=True):
        found_norm = np.linalg.norm(state[name])
        np.testing.assert_allclose(found_norm, norm, rtol=1e-8, atol=noise, err_msg=name)
    for key, expected in golden.items():
        if key.startswith(f"{case}/grad/"):
            name = key.removeprefix(f"{case}/grad/")
            np.testing.assert_allclose(state[name], expected, rtol=1e-8, atol=noise, err_msg=name)
    check_statistics(golden, case, load.seed, state)


def check_statistics(
    golden: Mapping[str, Any], case: str, seed: int, state: Mapping[str, np.ndarray]
) -> None:
    """Hold .9 of the drawn statistics and .1 of the batch's against the reference's."""
    after = dict(
        zip(golden[f"{case}/buffer_names"], golden[f"{case}/buffer_norms_after"], strict=True)
    )
    for name, norm in after.items():
        if not str(name).endswith(("running_mean", "running_var")):
            continue
        kind = f"norm.{str(name).rsplit('.', 1)[1]}"
        drawn = KINDS[kind](draw(seed, f"w:{name}"), state[str(name)].shape)
        running = 0.9 * drawn + 0.1 * state[str(name)]
        np.testing.assert_allclose(np.linalg.norm(running), norm, rtol=1e-9, err_msg=str(name))
        if f"{case}/buffer_after/{name}" in golden:
            np.testing.assert_allclose(running, golden[f"{case}/buffer_after/{name}"], rtol=1e-9)
