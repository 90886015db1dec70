"""Every config key is checked, and a workdir belongs to one config."""

import json

import pytest

from uniface_jax import config as configs
from uniface_jax.errors import UserError


def changed(**values):
    config = configs.base()
    config.update_from_flattened_dict({key.replace("__", "."): v for key, v in values.items()})
    return config


def test_base_is_valid():
    configs.check(configs.base(), num_devices=1)
    configs.check(configs.base(), num_devices=64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 100}, r"config.batch_size=100: must be divisible by 3 devices x 4 micro_b"),
        ({"batch_size": 12}, r"config.batch_size=12: leaves batch norm one sample"),
        ({"optim__lr": -1.0}, r"config.optim.lr=-1.0: must be > 0"),
        ({"optim__schedule": "step"}, r"config.optim.schedule=step: must be one of steps, poly"),
        (
            {"optim__milestones": (24, 16)},
            r"config.optim.milestones=\[24, 16\]: must be incr",
        ),
        ({"head__sampling_rate": 1.5}, r"config.head.sampling_rate=1.5: must be above 0, at most"),
        ({"model__dtype": "float16"}, r"config.model.dtype=float16: must be one of float32, bf"),
        ({"model__stage_sizes": (1, 2)}, r"config.model.stage_sizes=\[1, 2\]: must be four"),
        ({"model__name": "vit"}, r"config.model.name=vit: must be one of .*iresnet100"),
        ({"loss__name": "focal"}, r"loss.name='focal': allowed are uce"),
        ({"loss__margin": 3.0}, r"loss.margin=3.0: must be"),
        ({"loss__name": "arcface", "loss__negative_weight": 0.5}, r"loss.negative_weight=0.5: arc"),
        ({"seed": -1}, r"config.seed=-1: must be from 0"),
        ({"parallel": "pjit"}, r"config.parallel=pjit: must be one of auto"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(UserError, match=message):
        configs.check(changed(**values), num_devices=3)


def test_unknown_and_missing_keys():
    config = configs.base()
    config.optim.unlock()
    config.optim.learning_rate = 0.1
    with pytest.raises(UserError, match=r"config.optim.learning_rate: no such key"):
        configs.check(config, 1)
    config = configs.base()
    with config.unlocked():
        del config.optim["lr"]
    with pytest.raises(UserError, match=r"config.optim.lr: missing"):
        configs.check(config, 1)


def test_json_round_trip():
    config = changed(model__stage_sizes=(1, 1, 1, 1), loss__margin=0.45)
    again = configs.from_json(configs.to_json(config))
    assert configs.flatten(again) == configs.flatten(config)
    configs.check(again, 1)


def test_workdir_belongs_to_one_config(tmp_path):
    workdir = tmp_path / "run"
    configs.claim_workdir(workdir, changed(optim__lr=0.2))
    assert json.loads((workdir / "config.json").read_text())["optim"]["lr"] == 0.2
    configs.claim_workdir(workdir, changed(optim__lr=0.2, log__every_steps=7))  # changes nothing
    with pytest.raises(UserError, match=r"run: belongs to a run with config.optim.lr=0.2, this"):
        configs.claim_workdir(workdir, changed(optim__lr=0.3))
    (workdir / "config.json").write_text("{not json")
    with pytest.raises(UserError, match=r"config.json: not the config of a run"):
        configs.claim_workdir(workdir, configs.base())


def test_create_network_and_loss_follow_the_config():
    config = changed(model__width=8, model__embedding_size=32, loss__margin=0.1)
    network = configs.create_network(config, dtype="float32")
    assert (network.width, network.embedding_size, network.dropout) == (8, 32, 0.4)
    assert configs.create_loss(config).bias == "shared"
