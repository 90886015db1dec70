"""How often layers are traced, and what is kept of it."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.programs import forget_forms
from uniface_jax import config as configs
from uniface_jax.plan import program
from uniface_jax.runtime.tracing import shared_partial

TRACED = []


def scaled(x, factor):
    """A form of a layer that says when it is traced."""
    TRACED.append((x.shape, x.dtype.name, factor))
    return (x * factor * jnp.ones(())).astype(x.dtype)


def layer(x, factor=2.0):
    ours = shared_partial(scaled, factor=factor)
    return jax.lax.platform_dependent(x, cpu=ours, default=jnp.negative)


@pytest.fixture(autouse=True)
def fresh():
    TRACED.clear()
    forget_forms()


def trace(function, *shape, dtype=np.float32):
    return jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, dtype))


def test_layers_alike_are_traced_once():
    trace(lambda x: layer(layer(x)), 3)
    trace(lambda x: layer(layer(x) + 1), 3)
    assert TRACED == [((3,), "float32", 2.0)]


def test_what_differs_is_traced_anew():
    for shape, dtype, factor in [(3, "float32", 2.0), (4, "float32", 2.0), (3, "bfloat16", 2.0),
                                 (3, "float32", 5.0)]:  # fmt: skip
        trace(lambda x, factor=factor: layer(x, factor), shape, dtype=dtype)
    assert len(set(TRACED)) == len(TRACED) == 4


def test_a_trace_of_one_precision_is_not_taken_for_another():
    for wanted in (False, True, False):
        with jax.enable_x64(wanted):
            traced = trace(layer, 3)
        (equation,) = (e for e in traced.eqns if e.primitive.name == "cond")
        assert ("f64" in str(equation.params["branches"])) == wanted


def test_what_cannot_be_shared_is_refused():
    closed_over = jnp.ones(3)
    with pytest.raises(TypeError, match="closes over"):
        shared_partial(lambda x: x + closed_over)
    for array in (closed_over, np.ones(3)):
        with pytest.raises(TypeError, match="unhashable"):
            shared_partial(scaled, factor=array)
    with pytest.raises(TypeError, match="unhashable"):
        jax.jit(lambda x: shared_partial(scaled, factor=x))(1.0)


def test_a_trace_is_kept_no_longer_than_its_function():
    shared = weakref.ref(shared_partial(scaled, factor=2.0))
    trace(layer, 3)
    assert shared() is not None
    forget_forms()
    gc.collect()
    assert shared() is None


def choices(jaxpr):
    """The forms of all choices by platform in a jaxpr."""
    for equation in jaxpr.eqns:
        branches = equation.params.get("branches", ())
        yield from branches if equation.params.get("branches_platforms") else ()
        for value in (*branches, *equation.params.values()):
            if hasattr(value, "eqns"):
                yield from choices(getattr(value, "jaxpr", value))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "lresnet18", "stage_sizes": (2, 1, 1, 1), "width": 16},
        {"name": "lresnet18", "stage_sizes": (2, 1, 1, 1), "width": 16, "kernels": "folded"},
        {"name": "mbf", "stage_sizes": (1, 1, 1, 1)},
        {"name": "vit_t", "stage_sizes": None},
    ],
    ids=["resnet", "folded", "mobilefacenet", "vit"],
)
def test_forms_of_a_step_hold_no_arrays(model):
    config = configs.base()
    config.model.update(model | {"embedding_size": 16})
    config.batch_size, config.micro_batches = 8, 1
    forms = [*choices(program.trace(program.planned(config, 64, 100), 2))]
    assert len(forms) > len(set(map(id, forms)))  # layers share some
    assert [form.consts for form in forms if form.consts] == []
