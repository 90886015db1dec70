"""Three training steps of the release's network against the authors' PyTorch, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import release_weights
from uniface_jax import losses, models
from uniface_jax.inference.mirror import mirror_sum
from uniface_jax.runtime import parallel
from uniface_jax.state import TrainState, Weights, class_sharded
from uniface_jax.train import step

RTOL = 1e-8
NOISE = 1e-12  # gradients that vanish in exact arithmetic are rounding noise in both


def release_state(seed: int):
    torch_state = release_weights.torch_state(seed)
    params, batch_stats = jax.tree.map(jnp.asarray, release_weights.to_variables(torch_state))
    weights = Weights(
        params, jnp.asarray(torch_state["loss.weight"]), jnp.asarray(torch_state["loss.bias"][0])
    )
    momentum = jax.tree.map(jnp.zeros_like, weights)
    return TrainState(jnp.zeros((), jnp.int32), weights, momentum, batch_stats)


def leaf(weights: Weights, name: str):
    if name == "loss.weight":
        return weights.prototypes
    if name == "loss.bias":
        return weights.bias
    tree = weights.network
    for key in release_weights.flax_path(name):
        tree = tree[key]
    return tree


def batch_of(golden):
    images = release_weights.draw(golden.seed, "images").integers(
        0, 256, (6, 112, 112, 3), dtype=np.uint8
    )
    labels = release_weights.draw(golden.seed, "net_labels").integers(0, 29, 6)
    return {"image": (images / 255 - 0.5) / 0.5, "label": labels.astype(np.int32)}


def test_golden_backbone(golden, x64, convolutions_as_products):
    expected = golden("backbone")
    network = models.create(
        "lresnet50", stage_sizes=release_weights.STAGES, dropout=0.0, dtype=jnp.float64
    )
    state = release_state(golden.seed)
    batch = batch_of(golden)
    np.testing.assert_array_equal(batch["label"], expected["labels"])

    @jax.jit
    def features(state):
        variables = {"params": state.weights.network, "batch_stats": state.batch_stats}
        features = partial(models.features, network, variables)
        return mirror_sum(features)(jnp.asarray(batch["image"]))

    np.testing.assert_allclose(features(state), expected["eval_features"], rtol=RTOL, atol=RTOL)

    train_step = step.make_step(
        network, losses.create("uce"), lambda _: 0.1, step.Settings(num_classes=29)
    )
    runner = parallel.create_runner("shard_map", class_sharded(state), jax.devices()[:1])
    compiled = runner.compile(train_step)
    placed = runner.place(state)
    for k in range(3):
        before = runner.logical(placed)
        placed, metrics = compiled(placed, runner.put(batch))
        state = runner.logical(placed)
        np.testing.assert_allclose(metrics["loss"], expected[f"step{k}/loss"], rtol=RTOL)
        np.testing.assert_allclose(
            metrics["grad_norm"], expected[f"step{k}/grad_norm_before_clip"], rtol=RTOL
        )
        np.testing.assert_allclose(state.weights.bias, expected[f"step{k}/bias"][0], rtol=RTOL)
        names = expected["param_names"]
        norms = {
            str(name): float(np.linalg.norm(np.ravel(leaf(state.weights, str(name)))))
            for name in names
            if name != "bn5.weight"  # fixed at 1: no parameter here
        }
        for name, norm in zip(
            expected["param_names"], expected[f"step{k}/param_norm"], strict=True
        ):
            if name in norms:
                np.testing.assert_allclose(norms[str(name)], norm, rtol=RTOL, err_msg=name)
        if k == 0:
            # After one step from rest the momentum is the clipped gradient plus the decay.
            for key in (key for key in expected if key.startswith("grad_norm/")):
                name = key.removeprefix("grad_norm/")
                decay = 5e-4 * np.asarray(leaf(before.weights, name))
                gradient = np.asarray(leaf(state.momentum, name)) - decay
                np.testing.assert_allclose(
                    np.linalg.norm(gradient), expected[key], rtol=RTOL, atol=NOISE, err_msg=name
                )
        for field, name in (("bn_mean_norm", "mean"), ("bn_var_norm", "var")):
            if f"step{k}/{field}" in expected:
                np.testing.assert_allclose(
                    np.linalg.norm(state.batch_stats["bn4"][name]),
                    expected[f"step{k}/{field}"],
                    rtol=RTOL,
                )
    np.testing.assert_allclose(
        features(jax.tree.map(jnp.asarray, state)),
        expected["eval_features_after"],
        rtol=RTOL,
        atol=RTOL,
    )
