"""Every recipe loads as the command line loads it, is allowed, and says what it must."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from ml_collections import config_flags

from tests.helpers.paths import ROOT
from uniface_jax import config as configs

RECIPES = sorted((ROOT / "configs").glob("*.py"))
PAPER = [path for path in RECIPES if path.stem != "demo"]
SETTINGS = ("head.sampling_rate", "loss.margin", "loss.negative_weight", "model.name")

# What makes each recipe, and the first number of the paper in its docstring (MR-All or MegaFace).
EXPECTED = {
    "casia_r50_uce": ("uce", 1.0, 0.0, None, "lresnet50", "19.59"),
    "casia_r50_uce_m": ("uce", 1.0, 0.4, None, "lresnet50", "47.45"),
    "casia_r50_uce_mb_lambda": ("uce", 1.0, 0.45, 0.6, "lresnet50", "48.54"),
    "casia_r50_uce_mb_r": ("uce", 0.5, 0.45, None, "lresnet50", "48.72"),
    "casia_r50_nsl": ("nsl", 1.0, 0.0, None, "lresnet50", "18.52"),
    "casia_r50_bce": ("bce", 1.0, 0.0, None, "lresnet50", "18.90"),
    "casia_r50_cosface": ("cosface", 1.0, 0.35, None, "lresnet50", "43.34"),
    "casia_r50_arcface": ("arcface", 1.0, 0.5, None, "lresnet50", "45.59"),
    "casia_r50_sphereface_r": ("sphereface_r", 1.0, None, None, "lresnet50", "39.92"),
    "casia_r50_sphereface2": ("sphereface2", 1.0, None, None, "lresnet50", "44.20"),
    "webface4m_r50": ("uce", 1.0, 0.4, 0.7, "lresnet50", "88.55"),
    "glint360k_r100": ("uce", 1.0, 0.4, 0.7, "lresnet100", "84.87"),
    "webface42m_r200": ("uce", 1.0, 0.4, 0.7, "lresnet200", "97.78"),
    "ms1mv2_r50": ("uce", 1.0, 0.4, 0.7, "lresnet50", None),
    "ms1mv2_r100": ("uce", 1.0, 0.4, 0.7, "lresnet100", None),
    "ms1mv3_r50": ("uce", 1.0, 0.4, 0.7, "lresnet50", None),
    "ms1mv3_r100": ("uce", 1.0, 0.4, 0.7, "lresnet100", None),
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipes_of_the_issue_are_there():
    assert {path.stem for path in PAPER} == set(EXPECTED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_loads_and_is_allowed_on_one_device_and_on_many(path):
    config = load(path).get_config()
    for devices in (1, 2, 4, 8):
        configs.check(config, devices)
    if config.batch_size == 4096:
        configs.check(config, 64)
    configs.create_network(config)
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_is_the_recipe_that_its_name_and_docstring_say(path):
    module = load(path)
    config, text = module.get_config(), module.__doc__
    flat = configs.flatten(config)
    name, *settings, number = EXPECTED[path.stem]
    assert [flat["loss.name"], *(flat[key] for key in SETTINGS)] == [name, *settings]
    layers = re.search(r"_r(\d+)", path.stem).group(1)
    assert config.model.name == f"lresnet{layers}"
    assert f"ResNet-{layers}" in text.splitlines()[0]
    assert re.search(
        r"^Data: .* images of .* people",
        text.replace("\n", " ").strip()[len(text.splitlines()[0]) :].strip(),
    )
    assert re.search(r"^Hardware: ", text, re.MULTILINE)
    assert config.data.train in text
    assert config.eval.data in text
    if number is None:
        assert re.search(r"^Paper: this project knows no number", text, re.MULTILINE)
    else:
        paper = text.split("Paper (a target, no result of this project): ")[1]
        assert re.search(r"\d+\.\d\d", paper).group() == number


def test_schedules_of_the_paper():
    casia = load(ROOT / "configs/casia_r50_uce_m.py").get_config()
    assert (casia.batch_size, casia.micro_batches, casia.epochs) == (512, 4, 28.0)
    assert (casia.optim.lr, casia.optim.schedule, tuple(casia.optim.milestones)) == (
        0.1, "steps", (16, 24),
    )  # fmt: skip
    for name, batch, lr, warmup in (
        ("webface4m_r50", 1024, 0.1, 0.0),
        ("glint360k_r100", 1024, 0.1, 0.0),
        ("webface42m_r200", 4096, 0.4, 1.0),
    ):
        config = load(ROOT / f"configs/{name}.py").get_config()
        optim = config.optim
        assert (config.batch_size, config.epochs, optim.lr) == (batch, 20.0, lr)
        assert (optim.schedule, optim.power, optim.warmup_epochs) == ("polynomial", 2.0, warmup)


def test_the_command_line_loads_a_recipe():
    flag = config_flags.config_flags.ConfigFileFlagParser(name="config")
    config = flag.parse(str(ROOT / "configs/casia_r50_uce_mb_r.py"))
    assert config.head.sampling_rate == 0.5


def test_table_of_recipes(tmp_path):
    file = tmp_path / "recipes.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "recipes.py", f"--json={file}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = {row["recipe"]: row for row in json.loads(file.read_text())}
    assert set(rows) == {path.stem for path in RECIPES}
    row = rows["casia_r50_uce_mb_lambda"]
    assert row["hyperparameters"] == {"margin": 0.45, "negative_weight": 0.6}
    assert "48.54" in row["paper"]
    assert "490,623" in row["data"]
    for name in rows:
        assert re.search(rf"^{name} .*lresnet", done.stdout, re.MULTILINE)
    assert re.search(r"^casia_r50_uce_mb_lambda +MR-All TAR@1e-6 48.54", done.stdout, re.MULTILINE)
