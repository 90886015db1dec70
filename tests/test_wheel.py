"""The package as a stranger has it: a wheel in an empty venv and an empty folder, no checkout."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from pins import constraints_file

import uniface_jax
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow
NOT_OF_THE_SOURCE = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests")


def succeeds(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel, made from the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_OF_THE_SOURCE))
    succeeds([sys.executable, "-m", "build", "--outdir", folder, source])
    shutil.rmtree(source)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """Runs a command in an empty folder, with a venv that has the wheel with [demo]."""
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder / "venv", with_pip=True)
    kept = {
        "HOME",
        "LANG",
        "XDG_CACHE_HOME",
        *(key for key in os.environ if key.startswith("PIP_")),
    }
    environment = {key: value for key, value in os.environ.items() if key in kept} | {
        "PATH": f"{folder / 'venv' / 'bin'}:{os.defpath}",
        "PIP_CONSTRAINT": str(constraints_file()),
        "JAX_PLATFORMS": "cpu",
        "PIP_NO_COMPILE": "1",  # most modules of the packages are never imported
        "XLA_FLAGS": FAST_COMPILATION,
    }
    (folder / "empty").mkdir()

    def run(*command):
        return subprocess.run(
            command, capture_output=True, text=True, cwd=folder / "empty", env=environment
        )

    installed = run("pip", "install", "--quiet", f"{wheel}[demo]")
    assert installed.returncode == 0, installed.stderr
    return run


def test_the_wheel_holds_recipes_types_and_kernels(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("configs", "uniface_jax"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                inside = Path("uniface_jax") / file.relative_to(ROOT / folder)
                if folder == "configs":
                    inside = Path("uniface_jax/configs") / file.relative_to(ROOT / folder)
                assert str(inside) in names
    outside = {name for name in names if not name.startswith("uniface_jax/")}
    assert {Path(name).parts[0] for name in outside} == {
        f"uniface_jax-{uniface_jax.__version__}.dist-info"
    }
    assert {Path(name).suffix for name in names if "/native/" in name} == {".py", ".cc", ".h"}


def test_the_sdist_holds_what_the_wheel_is_made_of(built):
    (file,) = built.glob("*.tar.gz")
    assert file.name == f"uniface_jax-{uniface_jax.__version__}.tar.gz"
    with tarfile.open(file) as archive:
        names = {str(Path(*Path(name).parts[1:])) for name in archive.getnames()}
    assert {"configs/demo.py", "uniface_jax/native/winograd.cc", "CHANGELOG.md", "LICENSE"} <= names
    assert {path.name for path in ROOT.glob("constraints*.txt")} <= names


def test_train_evaluate_and_export_without_the_checkout(stranger):
    where = stranger("python", "-c", "import uniface_jax; print(uniface_jax.__file__)")
    assert "site-packages" in where.stdout
    version = stranger("uniface", "--version").stdout
    assert version == f"uniface_jax {uniface_jax.__version__}\n"

    trained = stranger("uniface", "train", "--config=demo", "--config.steps=5", "--workdir=w")
    assert trained.returncode == 0, trained.stderr
    data = "--data=runs/faces/orl.bin"
    evaluated = stranger("uniface", "evaluate", "--model=w", data, "--output=e")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "ROC-AUC" in evaluated.stdout or "AUC" in evaluated.stdout

    # Export needs an extra; what the error says is what installs it.
    export = ("uniface", "export", "--workdir=w", "--output=model.onnx")
    refused = stranger(*export)
    assert refused.returncode == 2
    found = re.fullmatch(r"error: onnx is not installed: (pip install .*)\n", refused.stderr)
    assert found, refused.stderr
    installed = stranger(*shlex.split(found[1]))
    assert installed.returncode == 0, installed.stderr
    exported = stranger(*export)
    assert exported.returncode == 0, exported.stderr
    assert max(json.loads(exported.stdout)["differences"].values()) < 1e-5
    again = stranger("uniface", "evaluate", "--model=model.onnx", data, "--output=o")
    assert again.returncode == 0, again.stderr


def test_both_extras_are_installed_then(stranger, wheel):
    planned = stranger("pip", "install", "--dry-run", "--no-index", f"{wheel}[demo,export]")
    assert planned.returncode == 0, planned.stderr
    assert stranger("pip", "check").returncode == 0


def test_importing_takes_little_beyond_jax(stranger):
    code = (
        "import jax, time; begin = time.perf_counter(); import uniface_jax; "
        "print(time.perf_counter() - begin)"
    )
    assert float(stranger("python", "-c", code).stdout) < 0.2
