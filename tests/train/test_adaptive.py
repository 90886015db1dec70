"""AdamW, LAMB and Muon: against PyTorch's numbers, optax's optimizers, and one row at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.config.multipliers import Multiplier, name_of
from uniface_jax.head.sampling import Subset
from uniface_jax.runtime.parallel import AXIS
from uniface_jax.state import TrainState, Weights
from uniface_jax.train import adaptive, optim, update
from uniface_jax.train.adaptive import Adaptive
from uniface_jax.train.settings import Settings

CASES = {"total50_warm5_power1": (50, 5, 1), "total8_warm2_power1": (8, 2, 1)}
CASES |= {"total8_warm2_power2": (8, 2, 2)}


def state_of(weights, settings):
    momentum = jax.tree.map(jnp.zeros_like, weights)
    state = TrainState(jnp.zeros((), jnp.int32), weights, momentum, {})
    return update.prepared(state, settings)


def one_update(settings, state, gradients, lr, subset=None):
    """Clip and update on the one device of a mesh; (state, metrics)."""
    arguments = jax.tree.map(lambda x: jnp.asarray(x)[None], (state, gradients, lr, subset))
    updated = compiled(settings, adaptive.BLOCK_ELEMENTS)(*arguments)
    return jax.tree.map(lambda x: x[0], updated)


@functools.cache
def compiled(settings, block_elements):
    """Return the compiled update; block_elements: what adaptive.BLOCK_ELEMENTS is now."""

    def step(state, gradients, lr, subset):
        gradients, norms = update.clipped(gradients, settings)
        slopes = jax.tree.map(lambda _: False, state.weights.network)
        state = update.updated(settings, slopes, lr, state, gradients, subset)
        return update.averaged(state, settings), norms

    return jax.jit(jax.vmap(step, axis_name=AXIS))


def toy(golden, prefix, number=None):
    """Return the toy's arrays as Weights: the head's matrix as prototypes, and a bias of zero."""

    def array(name):
        value = golden[f"{prefix}/{name}"]
        return jnp.asarray(value if number is None else value[number])

    network = {"kernel": array("backbone.weight"), "bias": array("backbone.bias")}
    return Weights(network, array("head.weight"), jnp.zeros(()))


def assert_equal(found, expected, tolerance=1e-12):
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(
            found.network[name], expected.network[name], rtol=tolerance, atol=tolerance
        )
    np.testing.assert_allclose(
        found.prototypes, expected.prototypes, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_golden_updates(golden2, x64, name, case):
    """torch.optim's parameters and moments after each step, as published: clip, step, schedule."""
    golden, (total, warmup, power) = golden2("optim"), CASES[case]
    assert [str(n) for n in golden["param_names"]] == [
        "backbone.weight", "backbone.bias", "head.weight",
    ]  # fmt: skip
    lr = {"adamw": 1e-3, "sgd": 0.1}[name]
    settings = Settings(
        num_classes=5, clip_network=True, sgd=optim.Sgd(0.9, 5e-4, 5.0),
        adaptive=Adaptive(weight_decay=0.1, clip=5.0) if name == "adamw" else None,
    )  # fmt: skip
    schedule = optim.polynomial_schedule(lr, power, warmup, total)
    schedule = optim.full_first_step(schedule, lr)
    state = state_of(toy(golden, "start"), settings)
    first = {"adamw": "exp_avg", "sgd": "momentum_buffer"}[name]
    for k in range(6):
        rate = schedule(jnp.asarray(k))
        np.testing.assert_allclose(rate, golden[f"{name}/{case}/lr"][k], rtol=1e-12)
        state, norms = one_update(settings, state, toy(golden, "grad", k), rate)
        np.testing.assert_allclose(
            norms["network_grad_norm"], golden[f"{name}/{case}/norm_before_clip"][k], rtol=1e-12
        )
        assert_equal(state.weights, toy(golden, f"{name}/{case}/param", k))
        assert_equal(state.momentum, toy(golden, f"{name}/{case}/{first}", k))
        if name == "adamw":
            assert_equal(state.second_moments, toy(golden, f"{name}/{case}/exp_avg_sq", k))


def random_weights(seed, classes=7, by_class=False):
    rng = np.random.default_rng(seed)
    shapes = {
        "fc": {"kernel": (4, 6), "bias": (6,)},
        "conv": {"kernel": (3, 3, 4, 5)},
        "depthwise": {"kernel": (3, 3, 1, 5)},
        "pos_embed": (1, 3, 4),
    }
    network = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s)), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    bias = rng.normal(size=(classes,) if by_class else ())
    return Weights(network, jnp.asarray(rng.normal(size=(classes, 8))), jnp.asarray(bias))


DIMENSIONS = optax.contrib.MuonDimensionNumbers
MATRICES = {  # of Muon; None for what moves as AdamW's
    "fc": {"kernel": DIMENSIONS(0, 1), "bias": None},
    "conv": {"kernel": DIMENSIONS((0, 1, 2), 3)},
    "depthwise": {"kernel": None},
    "pos_embed": None,
}


def by_optax(optimizer, network, gradients):
    """Return the network's arrays after one of optax's optimizers has seen all gradients."""
    carried, move = optimizer.init(network), jax.jit(optimizer.update)
    for gradient in gradients:
        changes, carried = move(gradient, carried, network)
        network = optax.apply_updates(network, changes)
    return network


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_the_networks_update_is_optaxs(x64, name, coupled):
    """Three updates as by optax's whole optimizers; coupled, the decay is in the gradient."""
    hyper = Adaptive(name, 0.8, 0.95, 1e-8, 0.9, weight_decay=0.03, clip=1e9, decoupled=not coupled)
    settings = Settings(num_classes=7, adaptive=hyper)
    state = state_of(random_weights(0), settings)
    before, gradients = state.weights.network, [random_weights(seed) for seed in (1, 2, 3)]
    for gradient in gradients:
        state, _ = one_update(settings, state, gradient, 0.1)
    networks = [gradient.network for gradient in gradients]
    decay = 0.0 if coupled else 0.03
    adam = {"b1": 0.8, "b2": 0.95, "eps": 1e-8, "weight_decay": decay}
    chain = [optax.add_decayed_weights(0.03)] if coupled else []
    whole = optax.lamb if name == "lamb" else optax.adamw
    expected = by_optax(optax.chain(*chain, whole(0.1, **adam)), before, networks)
    if name == "muon":
        muon = optax.contrib.muon(
            0.1, beta=0.9, weight_decay=decay, muon_weight_dimension_numbers=MATRICES,
            consistent_rms=0.2,
        )  # fmt: skip
        by_muon = by_optax(optax.chain(*chain, muon), before, networks)
        expected = jax.tree.map(
            lambda plain, matrix, dims: plain if dims is None else matrix,
            expected, by_muon, MATRICES,
        )  # fmt: skip
    for path, found in jax.tree_util.tree_leaves_with_path(state.weights.network):
        value = dict(jax.tree_util.tree_leaves_with_path(expected))[path]
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-9, err_msg=str(path))
    assert int(state.updates.network) == 3


def single(tree):
    return jax.tree.map(jnp.float32, tree)


def rows_of(mask, size):
    """Return the subset of a mask's rows, with `size` places, in the form of sample_classes."""
    row = np.flatnonzero(mask)
    row = np.concatenate([row, np.full(size - len(row), len(mask) - 1)]).astype(np.int32)
    return Subset(jnp.asarray(row), jnp.arange(size) < mask.sum())


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 3, 9]))
@examples(16)
def test_each_row_is_an_optimizer_of_its_own(name, seed, block):
    """Sampled rows move as if alone, by their own count; the others stay bitwise, moments too."""
    rng, classes = np.random.default_rng(seed), 7
    hyper = Adaptive(name, weight_decay=0.1, clip=1e9)
    settings = Settings(num_classes=classes, adaptive=hyper)
    first = single(random_weights(seed, classes, True))
    state = start = state_of(first._replace(network={}), settings)
    alone = {c: (start.weights.prototypes[c], []) for c in range(classes)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "BLOCK_ELEMENTS", 8 * block)
        for _ in range(4):
            mask = rng.random(classes) < 0.5
            subset = rows_of(mask, classes)
            gradients = single(random_weights(rng.integers(10**6), classes, True))
            chosen = gradients._replace(
                network={},
                prototypes=gradients.prototypes[subset.row],
                bias=gradients.bias[subset.row],
            )
            before = state
            state, _ = one_update(settings, state, chosen, 0.05, subset)
            both = jax.device_get((before, state))  # JAX compiles for each number of rows
            for field in ("weights", "momentum", "second_moments", "updates"):
                for part in ("prototypes", "bias"):
                    was, now = (getattr(getattr(s, field), part) for s in both)
                    np.testing.assert_array_equal(now[~mask], was[~mask])
                    moved = (now != was).reshape(classes, -1).any(axis=1)
                    assert moved[mask].all()
            for c in np.flatnonzero(mask):
                alone[c][1].append(gradients.prototypes[c])
    optimizer = {"adamw": optax.adamw, "lamb": optax.lamb}[name](0.05, eps=1e-8, weight_decay=0.1)
    for c, (weight, each) in alone.items():
        weight = by_optax(optimizer, weight, each)
        np.testing.assert_allclose(state.weights.prototypes[c], weight, rtol=2e-4, atol=1e-5)
        assert int(state.updates.prototypes[c]) == len(each)


NAMES = ["network.fc.kernel", "network.fc.bias", "network.conv.kernel", "prototypes", "bias"]


@given(
    factors=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 0.5, 1.0])),
    decays=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 0.3])),
    matrices=st.booleans(),
    name=st.sampled_from(["sgd", "adamw"]),
    decoupled=st.booleans(),
)
@examples(16)
def test_groups_masks_and_frozen_parameters(factors, decays, matrices, name, decoupled):
    """Each array moves as one alone, by its own rate and decay; a frozen one stays bitwise."""
    hyper = Adaptive(weight_decay=0.1, clip=1e9, decoupled=decoupled)
    settings = Settings(
        num_classes=7,
        sgd=optim.Sgd(0.9, 0.1, 1e9, decoupled),
        adaptive=hyper if name == "adamw" else None,
        multipliers=tuple(Multiplier(*pair) for pair in factors.items()),
        decays=tuple(Multiplier(*pair) for pair in decays.items()),
        decay_matrices=matrices,
    )
    weights, gradients = (small(single(random_weights(seed))) for seed in (0, 1))
    state = state_of(weights, settings)
    for _ in range(2):
        state, norms = one_update(settings, state, gradients, 0.05)
    found = dict(leaves(state.weights))
    total = 0.0
    for path, weight in leaves(weights):
        gradient, default = dict(leaves(gradients))[path], 0.1
        if matrices and weight.ndim < 2:
            default = 0.0
        factor, decay = factors.get(path, 1.0), decays.get(path, default)
        if not factor:
            np.testing.assert_array_equal(found[path], weight)
            continue
        total += np.sum(np.square(gradient))
        expected = alone(name, decoupled, 0.05 * factor, decay, weight, gradient)
        np.testing.assert_allclose(found[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)
    np.testing.assert_allclose(norms["grad_norm"], np.sqrt(total), rtol=1e-5)


def small(weights):
    network = {name: weights.network[name] for name in ("fc", "conv")}
    return weights._replace(network=network)


def leaves(weights):
    paths = jax.tree_util.tree_leaves_with_path(weights)
    return [(name_of(path), x) for path, x in paths]


def alone(name, decoupled, lr, decay, weight, gradient):
    """Return an array after two steps by optax."""
    before = [] if decoupled else [optax.add_decayed_weights(decay)]
    after = [optax.add_decayed_weights(decay)] if decoupled else []
    inner = optax.scale_by_adam() if name == "adamw" else optax.trace(0.9)
    optimizer = optax.chain(*before, inner, *after, optax.scale(-lr))
    return by_optax(optimizer, weight, [gradient, gradient])


@pytest.mark.parametrize("grouped", [False, True])
def test_a_clipped_network_leaves_the_head(x64, grouped):
    """The network by its own norm, at most `clip`; the head's gradient is as large as it was."""
    multipliers = (Multiplier("network.conv.*", 0.0),) if grouped else ()
    settings = Settings(
        num_classes=7, clip_network=True, multipliers=multipliers, sgd=optim.Sgd(0.0, 0.0, 0.5)
    )
    weights, gradients = random_weights(0), random_weights(1)
    state, norms = one_update(settings, state_of(weights, settings), gradients, 1.0)
    network = [x for path, x in leaves(gradients) if path.startswith("network")]
    if grouped:
        network = [x for path, x in leaves(gradients) if "network" in path and "conv" not in path]
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in network))
    np.testing.assert_allclose(norms["network_grad_norm"], norm)
    moved = weights.network["fc"]["kernel"] - state.weights.network["fc"]["kernel"]
    np.testing.assert_allclose(moved, gradients.network["fc"]["kernel"] * 0.5 / (norm + 1e-6))
    np.testing.assert_allclose(weights.prototypes - state.weights.prototypes, gradients.prototypes)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_mean_of_the_weights(x64, name):
    """Update k of n weighs ema**(n - k); the first weights are not in it."""
    adaptive_ = Adaptive(clip=1e9) if name == "adamw" else None
    settings = Settings(num_classes=7, ema=0.6, adaptive=adaptive_, sgd=optim.Sgd(clip=1e9))
    state = state_of(random_weights(0), settings)
    seen = []
    for seed in (1, 2, 3):
        state, _ = one_update(settings, state, random_weights(seed), 0.1)
        seen.append(state.weights.network["fc"]["kernel"])
    weighing = 0.6 ** np.arange(2, -1, -1)
    expected = sum(w * x for w, x in zip(weighing, seen, strict=True)) / weighing.sum()
    np.testing.assert_allclose(state.average.network["fc"]["kernel"], expected, rtol=1e-12)
    assert int(state.average.updates) == 3


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@pytest.mark.parametrize("sampled", [False, True])
def test_nothing_of_the_heads_size_is_held_beside_it(name, sampled, monkeypatch):
    """The compiled update of 20,000 prototypes works in less than a tenth of their size."""
    monkeypatch.setattr(adaptive, "BLOCK_ELEMENTS", 2**14)
    rows, size, count = 20_000, 64, 8000 if sampled else 20_000
    kind = adaptive.kind_of(Adaptive(name), "prototypes", (rows, size))

    def run(weights, moments, gradients, index):
        chosen = (gradients, index if sampled else None)
        rates = (jnp.float32(0.1), 0.1)
        return adaptive.update_rows(Adaptive(name), kind, rates, weights, moments, chosen)

    whole = jax.ShapeDtypeStruct((rows, size), jnp.float32)
    moments = adaptive.Moments(jax.ShapeDtypeStruct((rows,), jnp.int32), whole, whole)
    gradients = jax.ShapeDtypeStruct((count, size), jnp.float32)
    index = jax.ShapeDtypeStruct((count,), jnp.int32)
    compiled = jax.jit(run, donate_argnums=(0, 1)).lower(whole, moments, gradients, index).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < rows * size * 4 / 10
