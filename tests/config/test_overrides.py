"""What a command line names counts, or it is an error."""

import pytest

from tests.helpers.registered import forgotten
from uniface_jax import config as configs
from uniface_jax.config.overrides import apply_named
from uniface_jax.errors import UserError
from uniface_jax.registry import Range


def config(**keys):
    """The base config with keys by their dotted paths, `__` for a dot."""
    made = configs.base()
    made.update_from_flattened_dict({key.replace("__", "."): value for key, value in keys.items()})
    return made


def test_epochs_of_the_command_line_win_over_steps_of_the_recipe():
    made = config(steps=400, epochs=1.0)
    assert apply_named(made, ["epochs"]) == []
    assert (made.steps, made.epochs) == (None, 1.0)
    made = config(steps=400)
    apply_named(made, ["steps"])
    assert made.steps == 400
    with pytest.raises(UserError, match=r"config.epochs=28 and config.steps=400: either says"):
        apply_named(made, ["steps", "epochs"])


def test_a_warm_up_has_one_length():
    keys = {"optim__schedule": "cosine", "optim__warmup_steps": 5, "optim__warmup_epochs": 2.0}
    made = config(**keys)
    apply_named(made, ["optim.warmup_epochs"])
    assert (made.optim.warmup_steps, made.optim.warmup_epochs) == (None, 2.0)
    with pytest.raises(UserError, match=r"config.optim.warmup_epochs=2 and .*_steps=5: either"):
        apply_named(config(**keys), ["optim.warmup_epochs", "optim.warmup_steps"])


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("optim.momentum", {"optim__name": "adamw"}),
        ("optim.beta1", {"optim__name": "sgd"}),
        ("optim.milestones", {"optim__schedule": "cosine"}),
        ("optim.factor", {"optim__schedule": "polynomial"}),
        ("optim.power", {"optim__schedule": "cosine"}),
        ("optim.warmup_epochs", {"optim__schedule": "steps"}),
        ("optim.warmup_steps", {"optim__schedule": "steps", "optim__warmup_steps": 5}),
        ("optim.as_published", {"optim__schedule": "cosine"}),
        ("nonfinite.limit", {"nonfinite__action": "stop"}),
    ],
)
def test_a_key_that_another_one_switches_off_is_refused(key, keys):
    made = config(**keys)
    apply_named(made, [])  # of a recipe alone
    with pytest.raises(UserError, match=rf"config.{key}=.*: counts with .* alone"):
        apply_named(made, [key])


def test_both_given_count():
    made = config(optim__schedule="polynomial", optim__power=3.0)
    apply_named(made, ["optim.schedule", "optim.power"])
    apply_named(config(nonfinite__action="skip"), ["nonfinite.action", "nonfinite.limit"])
    assert made.optim.power == 3.0


def test_keys_of_a_part_that_is_not_used_are_refused():
    from uniface_jax import losses, models

    with forgotten():

        @losses.register_loss("doc_other", height=Range("> 0", lambda value: value > 0))
        def other(height: float = 1.0):
            return losses.create("nsl")

        @models.register_network("doc_flat")
        def flat(embedding_size, dtype):
            raise AssertionError

        made = configs.base()
        with pytest.raises(UserError, match=r"config.loss.doc_other.height=1.0: not a key of loss"):
            apply_named(made, ["loss.doc_other.height"])
        made.model.name = "doc_flat"
        with pytest.raises(UserError, match=r"config.model.width=64: not a key of model.name=doc"):
            apply_named(made, ["model.width"])
        apply_named(made, ["model.embedding_size", "model.name"])


def test_keys_of_an_evaluation_that_there_is_not_are_noted():
    assert apply_named(config(), ["eval.every_steps", "eval.data"]) == [
        "config.eval.every_steps=2000 does nothing: config.eval.data is empty"
    ]
    assert apply_named(config(eval__data="lfw.bin"), ["eval.every_steps"]) == []
