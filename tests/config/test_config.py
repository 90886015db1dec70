"""Every config key is checked, and a workdir belongs to one config."""

import json
import sys

import flax.linen as nn
import jax.numpy as jnp
import pytest

from tests.helpers.registered import forgotten
from uniface_jax import config as configs
from uniface_jax import register_augmentation, register_loss, register_network
from uniface_jax.errors import UserError
from uniface_jax.losses import Loss
from uniface_jax.registry import above


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
        ({"optim__name": "adam"}, r"config.optim.name=adam: must be one of sgd, adamw, lamb, muon"),
        ({"optim__beta2": 1.0}, r"config.optim.beta2=1.0: must be from 0 to below 1"),
        ({"optim__decay": "l2"}, r"config.optim.decay=l2: must be one of auto, coupled, decoupled"),
        ({"optim__clip_on": "head"}, r"config.optim.clip_on=head: must be one of all, network"),
        ({"optim__ema": 1.0}, r"config.optim.ema=1.0: must be from 0 to below 1"),
        ({"optim__warmup_steps": -1}, r"config.optim.warmup_steps=-1: must be >= 0"),
        ({"optim__decays": "bias"}, r"config.optim.decays: 'bias' is not PATTERN=DECAY"),
        ({"optim__decays": "bias=1"}, r"config.optim.decays: 'bias=1' is not .* below 1"),
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
        ({"model__kernels": "fast"}, r"config.model.kernels=fast: must be one of auto, plain, fo"),
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


def test_what_a_run_began_from_may_be_left_out_but_not_changed(tmp_path):
    workdir = tmp_path / "run"
    configs.claim_workdir(workdir, changed(finetune="runs/pretrained"))
    for again in ("", "runs/pretrained"):
        configs.claim_workdir(workdir, changed(finetune=again))
        assert json.loads((workdir / "config.json").read_text())["finetune"] == "runs/pretrained"
    with pytest.raises(UserError, match=r"began from runs/pretrained, and config.finetune=other"):
        configs.claim_workdir(workdir, changed(finetune="other"))


def test_a_workdir_may_be_extended_or_taken_over(tmp_path):
    workdir = tmp_path / "run"
    configs.claim_workdir(workdir, changed(optim__lr=0.2))
    longer = changed(optim__lr=0.1, steps=9, optim__multipliers="network.*=0")
    with pytest.raises(
        UserError, match=r"optim.lr=0.2, this one has 0.1; .*, or --extend to .*NEW"
    ):
        configs.claim_workdir(workdir, longer)
    configs.claim_workdir(workdir, longer, extend=True)
    configs.claim_workdir(workdir, longer)
    wider = changed(optim__lr=0.1, steps=9, optim__multipliers="network.*=0", model__width=32)
    with pytest.raises(UserError, match=r"width=64, this one has 32; .*finetune=.*run --workdir=N"):
        configs.claim_workdir(workdir, wider, extend=True)
    configs.claim_workdir(workdir, wider, begun=False)  # what is there has no checkpoint
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 32


@pytest.mark.parametrize(
    ("name", "before", "after", "taken"),
    [
        ("adamw", "network.*=0", "", False),
        ("adamw", "network.*=0", "network.*=0.1", False),
        ("muon", "network.*=0", "network.*=0, network.fc5.*=1", False),
        ("adamw", "network.*=0", "network.*=0, bias=0", True),
        ("adamw", "network.*=0.1", "", True),
        ("adamw", "", "network.*=0", True),
        ("sgd", "network.*=0", "", True),
    ],
)
def test_what_has_no_moments_stays_frozen_when_a_run_is_extended(
    name, before, after, taken, tmp_path
):
    """Refuse it: a frozen array's moments are zeros, of as many updates as the network's others."""
    workdir = tmp_path / "run"
    configs.claim_workdir(workdir, changed(optim__name=name, optim__multipliers=before))
    other = changed(optim__name=name, optim__multipliers=after)
    if taken:
        configs.claim_workdir(workdir, other, extend=True)
    else:
        with pytest.raises(UserError, match=r"run with config.optim.multipliers=network.\*=0, .*"):
            configs.claim_workdir(workdir, other, extend=True)


def test_a_workdir_may_be_older_than_a_key(tmp_path):
    """Take what it does not name at its default, when it is read and when it is claimed again."""
    config = json.loads(configs.to_json(changed(optim__lr=0.2)))
    del config["optim"]["power"], config["data"]["prepare"]
    text = json.dumps(config)
    assert configs.flatten(configs.from_json(text)) == configs.flatten(changed(optim__lr=0.2))
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.optim.power=2.0, this one has 3.0"):
        configs.claim_workdir(workdir, changed(optim__lr=0.2, optim__power=3.0))
    configs.claim_workdir(workdir, changed(optim__lr=0.2))
    assert json.loads((workdir / "config.json").read_text())["optim"]["power"] == 2.0


@pytest.mark.parametrize(
    ("network", "gpu", "kernels"),
    [("lresnet50", True, "folded"), ("lresnet50", False, "plain"), ("vit_t", True, "plain")],
)
def test_a_run_keeps_the_kernels_that_it_began_with(tmp_path, network, gpu, kernels):
    given = changed(model__name=network)
    assert configs.as_begun(given, tmp_path) is given  # where nothing has begun
    began = configs.with_kernels(given, gpu)
    assert given.model.kernels == "auto"
    assert began.model.kernels == kernels
    configs.claim_workdir(tmp_path, began)
    again = configs.with_kernels(configs.as_begun(given, tmp_path), not gpu)
    assert again.model.kernels == kernels
    configs.claim_workdir(tmp_path, again)
    other = {"folded": "plain", "plain": "folded"}[kernels]
    with pytest.raises(UserError, match=f"config.model.kernels={kernels}, this one has {other}"):
        configs.claim_workdir(tmp_path, changed(model__name=network, model__kernels=other))


def test_a_run_from_before_there_were_kernels_is_plain(tmp_path):
    config = json.loads(configs.to_json(changed()))
    del config["model"]["kernels"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = configs.with_kernels(configs.as_begun(changed(), tmp_path), gpu=True)
    assert again.model.kernels == "plain"
    configs.claim_workdir(tmp_path, again)


def test_kernels_are_of_the_network():
    assert configs.create_network(changed(model__kernels="folded")).fold
    assert not configs.create_network(changed(model__kernels="plain")).fold
    with pytest.raises(UserError, match=r"config.model.kernels=folded: mbf has no batch norm in f"):
        configs.create_network(changed(model__name="mbf", model__kernels="folded"))


@pytest.mark.parametrize("text", ["5", "[1]", '{"model": 3}', '{"optim": 3}', "{"])
def test_what_is_no_config_is_a_value_error(text):
    with pytest.raises(ValueError):
        configs.from_json(text)


def test_features_of_a_vit_are_computed_without_the_kernels_that_trained_it():
    config = configs.base()
    config.model.update({"name": "vit_t", "dtype": "bfloat16"})
    config.model.vit.attention = "cudnn"
    assert configs.create_network(config).attention == "cudnn"
    config.model.vit.product_dtype = "int8"
    assert configs.create_network(config).product_dtype == "int8"
    features = configs.create_network(config, dtype="float32")
    assert (features.attention, features.product_dtype) == ("einsum", None)


def test_create_network_and_loss_follow_the_config():
    config = changed(model__width=8, model__embedding_size=32, loss__margin=0.1)
    network = configs.create_network(config, dtype="float32")
    assert (network.width, network.embedding_size, network.dropout) == (8, 32, 0.4)
    assert configs.create_loss(config).bias == "shared"


@pytest.fixture
def parts():
    """A loss, a network and an augmentation from outside."""
    with forgotten():

        @register_loss("soft", temperature=above(0))
        def soft(temperature: float = 0.5) -> Loss:
            return Loss("softmax", lambda cos, b: cos, lambda cos, b: cos, 1 / temperature)

        @register_network("plain", channels=above(0))
        class Plain(nn.Module):
            embedding_size: int
            dtype: object
            channels: int = 4

            @nn.compact
            def __call__(self, images):
                x = nn.Conv(self.channels, (3, 3), (4, 4), dtype=self.dtype)(images)
                return nn.Dense(self.embedding_size, dtype=self.dtype)(x.mean((1, 2)))

        @register_augmentation("fog", density=above(0))
        def fog(pixels, generator, density: float = 0.5):
            return pixels

        yield


def test_parts_have_keys_of_their_own(parts):
    keys = configs.flatten(configs.base())
    assert (keys["loss.soft.temperature"], keys["model.plain.channels"]) == (0.5, 4)
    assert (keys["data.augment.fog.probability"], keys["data.augment.fog.density"]) == (0.0, 0.5)
    assert configs.allowed("loss.soft.temperature") == "> 0"
    config = changed(
        loss__name="soft", loss__soft__temperature=0.25,
        model__name="plain", model__plain__channels=6, model__embedding_size=8,
        data__augment__fog__probability=0.5,
    )  # fmt: skip
    configs.check(config, 1)
    assert configs.create_loss(config).scale == 4.0
    network = configs.create_network(config, dtype="bfloat16")
    assert (network.embedding_size, network.module.channels) == (8, 6)
    assert network.module.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss__soft__temperature": -1.0}, r"config.loss.soft.temperature=-1.0: must be > 0"),
        ({"model__plain__channels": 0}, r"config.model.plain.channels=0: must be > 0"),
        ({"data__augment__fog__probability": 2.0}, r"fog.probability=2.0: must be from 0"),
        ({"loss__name": "soft", "loss__margin": 0.3}, r"loss.margin=0.3: soft has .* loss.soft.te"),
        ({"model__name": "swin"}, r"config.model.name=swin: must be one of .*mbf_large, plain"),
    ],
)
def test_bad_values_of_parts(parts, values, message):
    with pytest.raises(UserError, match=message):
        configs.check(changed(**values), 1)


def test_keys_of_parts_may_be_missing(parts):
    config = changed(loss__name="soft")
    with config.unlocked():
        del config.loss["soft"]
    configs.check(config, 1)
    assert configs.create_loss(config).scale == 2.0


def test_imports_come_first_and_stay_with_the_config(tmp_path, monkeypatch):
    (tmp_path / "outside_soft.py").write_text(
        "from uniface_jax import Range, register_loss\n"
        "from uniface_jax.losses import Loss\n"
        "@register_loss('outside', heat=Range('> 0', lambda heat: heat > 0))\n"
        "def outside(heat: float = 2.0) -> Loss:\n"
        "    return Loss('softmax', lambda cos, b: cos, lambda cos, b: cos, heat)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workdir = tmp_path / "run"
    with forgotten():
        config = configs.base(imports=("outside_soft",))
        config.loss.name, config.loss.outside.heat = "outside", 3.0
        configs.claim_workdir(workdir, config)
    del sys.modules["outside_soft"]
    with forgotten():
        again = configs.from_json((workdir / "config.json").read_text(), workdir)
        assert again.imports == ("outside_soft",)
        assert configs.create_loss(again).scale == 3.0
        configs.claim_workdir(workdir, again)
        again.loss.outside.heat = 4.0
        with pytest.raises(UserError, match=r"belongs to a run with config.loss.outside.heat=3.0"):
            configs.claim_workdir(workdir, again)
        with pytest.raises(UserError, match=r"belongs to a run with config.imports=.'outside_s"):
            configs.claim_workdir(workdir, configs.base())
    del sys.modules["outside_soft"]
    (tmp_path / "outside_soft.py").unlink()
    with pytest.raises(UserError, match=r"^config.imports: no module 'outside_soft'"):
        configs.from_json((workdir / "config.json").read_text(), workdir)


def test_a_workdir_of_an_older_version_lacks_keys(tmp_path):
    """A missing key means its default."""
    workdir = tmp_path / "run"
    configs.claim_workdir(workdir, changed(optim__lr=0.2))
    values = json.loads((workdir / "config.json").read_text())
    del values["imports"], values["watchdog_seconds"], values["optim"]["clip"]
    (workdir / "config.json").write_text(json.dumps(values))
    configs.claim_workdir(workdir, changed(optim__lr=0.2))
    assert json.loads((workdir / "config.json").read_text())["imports"] == []
    (workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"belongs to a run with config.optim.clip=10.0, this one"):
        configs.claim_workdir(workdir, changed(optim__lr=0.2, optim__clip=5.0))


@pytest.mark.parametrize(
    "key", ["optim.lr", "optim.eps", "optim.warmup_epochs", "epochs", "watchdog_seconds"]
)
def test_infinite_values_are_refused_but_for_the_clipping(key):
    config = changed(optim__clip=float("inf"))
    configs.check_values(config)
    config.update_from_flattened_dict({key: float("inf")})
    with pytest.raises(UserError, match=f"config.{key}=inf: must be finite"):
        configs.check_values(config)


def test_a_milestone_that_never_comes_is_refused():
    with pytest.raises(UserError, match=r"config.optim.milestones=\[4, inf\]: must be finite"):
        configs.check_values(changed(optim__milestones=(4, float("inf"))))


def test_pairs_of_samples_are_refused_for_sums():
    """UNPG adds logits, which losses of the additive family do not have."""
    config = configs.base()
    config.head.pair_whisker = 1.5
    with pytest.raises(UserError, match=r"config.head.pair_whisker=1.5: .*uce is a sum of binary"):
        configs.create_loss(config)
    config.loss.name = "cosface"
    assert configs.create_loss(config).pair_whisker == 1.5
