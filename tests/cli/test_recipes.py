"""Recipes by name, by path and by what they were called before, from any folder."""

import json
import shutil
import sys

import pytest
from ml_collections import ConfigDict

from tests.helpers.paths import ROOT
from tests.helpers.registered import forgotten
from uniface_jax.cli import recipes
from uniface_jax.errors import UserError

OWN = """
from uniface_jax.config import base

def get_config(variant="small"):
    config = base()
    config.model.width = {"small": 8, "large": 16}[variant]
    return config
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(recipe):
    """The message about a recipe that cannot be taken; it is one line."""
    with pytest.raises(UserError) as caught:
        recipes.load(recipes.locate(recipe))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_by_name_from_any_folder(outside):
    found = recipes.locate("casia:uce_m")
    assert (found.file, found.variant) == (ROOT / "configs" / "casia.py", "uce_m")
    assert found.name == "casia:uce_m"
    assert recipes.load(found)[1].loss.margin == 0.4
    assert recipes.load(recipes.locate("demo"))[1].batch_size == 64


def test_by_path(outside):
    shutil.copytree(ROOT / "configs", outside / "configs")
    found = recipes.locate("configs/casia.py:uce_m")
    assert str(found.file) == "configs/casia.py"
    assert recipes.load(found)[1].loss.margin == 0.4


def test_ones_own_file(outside):
    (outside / "mine.py").write_text(OWN)
    assert recipes.load(recipes.locate("mine.py"))[1].model.width == 8
    assert recipes.load(recipes.locate("mine.py:large"))[1].model.width == 16
    assert refused("mine.py:huge") == "--config=mine.py:huge: line 6: KeyError: 'huge'"


def test_in_a_wheel_they_are_in_the_package(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "uniface_jax"
    (installed / "cli").mkdir(parents=True)
    shutil.copytree(ROOT / "configs", installed / "configs")
    monkeypatch.setattr(recipes, "__file__", str(installed / "cli" / "recipes.py"))
    assert recipes.folder() == installed / "configs"
    assert "casia" in recipes.names()
    assert recipes.locate("demo").file == installed / "configs" / "demo.py"


@pytest.mark.parametrize(
    ("recipe", "now"),
    [
        ("configs/casia_r50_uce_m.py", "casia:uce_m"),
        ("/somewhere/configs/casia_r50_sphereface_r.py", "casia:sphereface_r"),
        ("configs/ms1mv2_r100.py", "ms1mv2:r100"),
        ("configs/glint360k_r100.py", "glint360k"),
        ("configs/webface4m_r50.py", "webface4m"),
        ("webface42m_r200", "webface42m"),
        ("configs/demo.py", "demo"),
        ("configs/casia.py:uce_m", "casia:uce_m"),
    ],
)
def test_former_paths_say_where_the_recipe_went(outside, recipe, now):
    assert refused(recipe).endswith(f"it is --config={now} now")
    recipes.load(recipes.locate(now))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("casia", "--config=casia: names no variant; there are uce, uce_m, uce_mb_lambda,"),
        ("casia:focal", "--config=casia:focal: no variant focal; there are uce, uce_m,"),
        ("ms1mv2", "names no variant; there are r50, r100"),
        ("webface4m:r18", "no variant r18; there are uce_m, uce_mb_lambda, uce_mb_r"),
        ("demo:small", "--config=demo:small: no variant small; there are vit, or none"),
        ("laptop:small", "--config=laptop:small: takes no variant"),
        ("nowhere", "no such recipe; there are casia, demo, glint360k, laptop, ms1mv2"),
        ("nowhere.py", "--config=nowhere.py: no such file; recipes by name: casia, demo"),
    ],
)
def test_what_is_no_recipe_lists_what_there_is(outside, recipe, words):
    assert words in refused(recipe)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "mine.py has no function get_config()"),
        ("def get_config():\n    return {}\n", "get_config() returned dict, no ConfigDict"),
        ("def get_config(:\n", "SyntaxError"),
        ("\nimport no_such_module\n", "line 2: ModuleNotFoundError: No module named"),
        ("def get_config(variant):\n    pass\n", "takes a variant"),
    ],
)
def test_a_broken_file_is_named_in_one_line(outside, text, words):
    (outside / "mine.py").write_text(text)
    message = refused("mine.py")
    assert message.startswith("--config=mine.py: ")
    assert words in message


def test_the_default_is_a_familys_best_known():
    for name in ("glint360k", "webface4m", "webface42m"):
        module, config = recipes.load(recipes.locate(name))
        _, named = recipes.load(recipes.locate(f"{name}:{module.DEFAULT}"))
        assert config.to_dict() == named.to_dict()


def test_command_lines(outside):
    demo = f"--config={ROOT}/configs/demo.py"
    assert recipes.prepare(["train"]) == ["train", demo]
    assert recipes.prepare(["train", "--workdir=w"]) == ["train", demo, "--workdir=w"]
    casia = f"--config={ROOT}/configs/casia.py:nsl"
    for given in (["--config=casia:nsl"], ["--config", "casia:nsl"], ["-config=casia:nsl"]):
        assert recipes.prepare(["train", "-v", *given, "x"]) == ["train", casia, "-v", "x"]
    changed = ["--config.steps=5", "--config=casia:nsl"]  # in an order that config_flags refuses
    assert recipes.prepare(["train", *changed]) == ["train", casia, "--config.steps=5"]
    assert recipes.prepare(["show", "DATA"], default=None) == ["show", "DATA"]


def test_an_override_of_no_key_lists_the_keys_beside_it():
    with pytest.raises(UserError, match=r"--config.optim.lrr=1: no such key; there are optim"):
        recipes.prepare(["train", "--config.optim.lrr=1"])
    with pytest.raises(UserError, match=r"--noconfig.model.rematt: no such key; .*model.remat"):
        recipes.prepare(["train", "--noconfig.model.rematt"])


@pytest.mark.parametrize("command", ["train", "plan"])
def test_print_config(command, run_cli, outside):
    done = run_cli(
        command, "--config=casia:uce_mb_r", "--config.optim.lr=0.3", "--print_config", cwd=outside
    )
    assert done.returncode == 0, done.stderr
    printed = ConfigDict(json.loads(done.stdout), convert_dict=True)
    _, expected = recipes.load(recipes.locate("casia:uce_mb_r"))
    expected.optim.lr = 0.3
    assert json.loads(done.stdout) == json.loads(expected.to_json_best_effort())
    assert printed.head.sampling_rate == 0.5
    assert list(outside.iterdir()) == []


def test_help_says_how_to_see_all_keys(run_cli):
    done = run_cli("train", "--help")
    assert "--print_config prints all keys with their values" in done.stdout


def test_imports_come_before_the_recipes_keys(outside, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (outside / "outside_cli_part.py").write_text(
        "from uniface_jax import Range, register_loss\n"
        "from uniface_jax.losses import Loss\n"
        "@register_loss('cli', heat=Range('> 0', lambda heat: heat > 0))\n"
        "def cli(heat: float = 2.0) -> Loss:\n"
        "    return Loss('softmax', lambda cos, b: cos, lambda cos, b: cos, heat)\n"
    )
    arguments = ["train", "--config.loss.cli.heat=3", "--config.imports=outside_cli_part,json"]
    with pytest.raises(UserError, match=r"--config.loss.cli.heat=3: no such key"):
        recipes.prepare(arguments[:2])
    with forgotten():
        _, _, imports, heat = recipes.prepare(arguments)
    del sys.modules["outside_cli_part"]
    assert (imports, heat) == ("--config.imports=('outside_cli_part', 'json')", arguments[1])
    with pytest.raises(UserError, match=r"^--config.imports: no module 'outside_none' in "):
        recipes.prepare(["train", "--config.imports=outside_none"])
