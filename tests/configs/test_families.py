"""Every recipe is what it was, is allowed, and says as data what its page says."""

import ast
import json
import subprocess
import sys
from inspect import signature

import pytest

from tests.helpers.paths import FIXTURES, ROOT
from uniface_jax import config as configs
from uniface_jax import losses
from uniface_jax.cli import recipes
from uniface_jax.config.facts import UNKNOWN, facts_of
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report import paper

BEFORE = json.loads((FIXTURES / "ec4f2e5" / "recipes.json").read_text())

# Each recipe of commit ec4f2e5 as it is called now, and the first number that it quoted.
NOW = {
    "casia_r50_uce": ("casia:uce", 19.59),
    "casia_r50_uce_m": ("casia:uce_m", 47.45),
    "casia_r50_uce_mb_lambda": ("casia:uce_mb_lambda", 48.54),
    "casia_r50_uce_mb_r": ("casia:uce_mb_r", 48.72),
    "casia_r50_nsl": ("casia:nsl", 18.52),
    "casia_r50_bce": ("casia:bce", 18.90),
    "casia_r50_cosface": ("casia:cosface", 43.34),
    "casia_r50_arcface": ("casia:arcface", 45.59),
    "casia_r50_sphereface_r": ("casia:sphereface_r", 39.92),
    "casia_r50_sphereface2": ("casia:sphereface2", 44.20),
    "webface4m_r50": ("webface4m", 88.55),
    "glint360k_r100": ("glint360k", 84.87),
    "webface42m_r200": ("webface42m", 97.78),
    "ms1mv2_r50": ("ms1mv2:r50", None),
    "ms1mv2_r100": ("ms1mv2:r100", None),
    "ms1mv3_r50": ("ms1mv3:r50", None),
    "ms1mv3_r100": ("ms1mv3:r100", None),
    "demo": ("demo", 98.5),
}
ALL = recipes.full_names()


def loaded(name):
    """(facts, config) of a recipe by its name."""
    located = recipes.locate(name)
    module, config = recipes.load(located)
    return facts_of(module, located.variant), config


def test_every_recipe_of_before_is_there():
    assert set(BEFORE) == set(NOW)
    assert {name for name, _ in NOW.values()} <= set(ALL)


@pytest.mark.parametrize("before", NOW)
def test_resolves_to_the_config_that_it_was(before):
    _, config = loaded(NOW[before][0])
    found, default = configs.flatten(config), configs.flatten(configs.base())
    assert {key: found[key] for key in BEFORE[before]} == BEFORE[before]
    newer = {key: found[key] for key in found.keys() - BEFORE[before].keys()}
    # Epochs of whole batches, as the release's loader has them, and the authors' gradient.
    chosen = {"data.drop_last": True}
    if before == "demo":
        chosen = {"data.prepare": "orl:runs/faces"}
    elif "sphereface" in before:
        chosen |= {"loss.gradient": "detached"}
    assert newer == {key: default[key] for key in newer} | chosen


@pytest.mark.parametrize(
    ("name", "base", "changes"),
    [
        ("casia:uce_mb_lambda_megaface", "casia:uce_m", {"loss.negative_weight": 0.7}),
        ("webface4m:uce_m", "webface4m", {"loss.negative_weight": 1.0}),
        (
            "webface4m:uce_mb_r",
            "webface4m",
            {"loss.negative_weight": 1.0, "head.sampling_rate": 0.4},
        ),
        (
            "webface42m:uce_mb_r",
            "webface42m",
            {"loss.negative_weight": 1.0, "head.sampling_rate": 0.4},
        ),
    ],
)
def test_variants_that_were_remarks_before(name, base, changes):
    """Their overrides stood in the docstring of the recipe that they vary."""
    (_, config), (_, other) = loaded(name), loaded(base)
    assert configs.flatten(config) == configs.flatten(other) | changes


@pytest.mark.parametrize("name", ALL)
def test_is_allowed_on_one_device_and_on_many(name):
    _, config = loaded(name)
    for devices in (1, 2, 4, 8):
        configs.check(config, devices)
    if config.batch_size == 4096:
        configs.check(config, 64)
    configs.create_network(config)


@pytest.mark.parametrize("name", ALL)
def test_facts_are_of_the_config(name):
    facts, config = loaded(name)
    assert KNOWN_SETS[facts.data.name] is facts.data
    if name in ("demo", "demo:vit", "laptop"):
        return
    assert config.data.train == f"data/{facts.data.name}"
    family, _, size = facts.network.partition("-")
    names = {"ResNet": "lresnet", "IResNet": "iresnet", "ViT": "vit_", "MobileFaceNet": "mbf"}
    assert config.model.name.startswith(names[family] + size.lower())
    devices = facts.hardware.devices
    images = config.batch_size // (devices * config.micro_batches)
    assert images * devices * config.micro_batches == config.batch_size
    assert images == 128 or family == "ViT"  # batch norm's images
    assert not facts.hardware.measured
    assert not facts.expected.measured


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_that_of_the_published_numbers(name):
    """Losses that have the choice say which they took, or that nobody knows."""
    facts, config = loaded(name)
    choice = "gradient" in signature(losses.LOSSES[config.loss.name]).parameters
    assert bool(facts.expected.gradient) == choice
    if facts.expected.gradient not in ("", UNKNOWN):
        assert config.loss.gradient == facts.expected.gradient


@pytest.mark.parametrize("name", ["webface4m:partial_fc", "webface42m:partial_fc"])
def test_insightfaces_recipes_start_as_insightface_does(name):
    facts, config = loaded(name)
    assert facts.title == "Partial FC"
    assert config.head.init_std == 0.01
    assert (config.loss.name, config.loss.margin) == ("cosface", 0.4)


@pytest.mark.parametrize("before", NOW)
def test_the_result_to_expect(before):
    name, number = NOW[before]
    facts, _ = loaded(name)
    assert next(iter(facts.expected.percent.values()), None) == number


def test_each_number_of_the_paper_is_expected_of_the_network_it_is_reported_for():
    rows = [dict(row.values) for row in paper.ROWS]
    facts = [loaded(name)[0].expected for name in ALL]
    expected = [dict(e.percent) for e in facts if e.source == "paper" and not e.measured]
    assert sorted(map(str, rows)) == sorted(map(str, filter(None, expected)))


@pytest.mark.parametrize(
    ("name", "batch", "micro_batches", "all_", "at_5"),
    [
        ("webface42m:vit_t", 384 * 64, 1, 92.24, 95.97),
        ("webface42m:vit_l", 384 * 64, 1, 97.85, 97.23),
        ("webface42m:vit_b_8gpu", 256 * 8 * 12, 12, 97.16, 97.05),
        ("ms1mv3:mbf", 1024, 1, 63.78, 91.33),
        ("glint360k:mbf", 1024, 1, 70.18, 92.62),
    ],
)
def test_recipes_of_arcface_torch(name, batch, micro_batches, all_, at_5):
    """The batches and published numbers of its configs and README."""
    facts, config = loaded(name)
    assert (config.batch_size, config.micro_batches) == (batch, micro_batches)
    assert facts.expected.source == "arcface_torch's README"
    percent = list(facts.expected.percent.values())
    assert (percent[0], percent[-1]) == (all_, at_5)
    optim = config.optim
    assert (optim.clip, optim.clip_on, config.head.init_std) == (5.0, "network", 0.01)
    if "vit" in name:
        assert (optim.name, optim.lr, optim.weight_decay) == ("adamw", 1e-3, 0.1)
        assert (optim.schedule, optim.power, optim.warmup_epochs) == ("polynomial", 1.0, 4.0)
        assert (config.loss.name, config.head.sampling_rate) == ("cosface", 0.3)
    else:
        assert (optim.name, optim.lr, optim.weight_decay) == ("sgd", 0.1, 1e-4)


def test_the_size_of_a_known_set_stands_in_one_file():
    counts = {entry.images for entry in KNOWN_SETS.values() if entry.images > 1000}
    for path in [*ROOT.glob("configs/*.py"), *ROOT.glob("uniface_jax/**/*.py")]:
        numbers = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and type(node.value) is int
        }
        assert path.stem == "known_sets" or not numbers & counts, path


def test_the_schedule_of_casia_is_the_releases():
    _, casia = loaded("casia:uce_m")
    assert (casia.batch_size, casia.micro_batches, casia.epochs) == (512, 4, 28.0)
    assert (casia.optim.lr, casia.optim.schedule, tuple(casia.optim.milestones)) == (
        0.1, "steps", (16, 24),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "batch", "lr", "warmup"),
    [
        ("webface4m", 1024, 0.1, 0.0),
        ("glint360k", 1024, 0.1, 0.0),
        ("webface42m", 4096, 0.4, 1.0),
    ],
)
def test_schedules_of_the_paper(name, batch, lr, warmup):
    _, config = loaded(name)
    optim = config.optim
    assert (config.batch_size, config.epochs, optim.lr) == (batch, 20.0, lr)
    assert (optim.schedule, optim.power, optim.warmup_epochs) == ("polynomial", 2.0, warmup)


def test_the_page_of_recipes_is_current(tmp_path):
    page, file = tmp_path / "README.md", tmp_path / "recipes.json"
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "recipes.py", f"--output={page}", f"--json={file}"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert page.read_text() == (ROOT / "configs" / "README.md").read_text()
    rows = json.loads(file.read_text())
    assert list(rows) == ALL
    row = rows["casia:uce_mb_lambda"]
    assert row["loss"] == {"name": "uce", "margin": 0.45, "negative_weight": 0.6}
    assert (row["expected"]["LFW"], row["measured"]) == (99.55, False)
    for name in ALL:
        assert f"| `--config={name}` |" in page.read_text()
