"""Compilers in a process of their own, which may die there and take nothing with them."""

import os
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.paths import ROOT
from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.plan import compilation, program, targets

TARGET = targets.parse("h100", 1)


@pytest.fixture(scope="module")
def recipe():
    config = configs.base()
    config.model.update(name="lresnet18", stage_sizes=(1, 1, 1, 1), width=4, embedding_size=16)
    return program.planned(config, 1_000, 10, TARGET)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Return a function that lets JAX load Python text as a compiler, but not where a plan runs."""

    def install(text: str) -> None:
        module = tmp_path / "jax_plugins" / "of_a_test" / "__init__.py"
        module.parent.mkdir(parents=True)
        module.write_text(
            "import os, sys, time\n"
            "def initialize():\n"
            "    if sys.argv[0] == '-c':\n" + textwrap.indent(text, " " * 8)
        )
        path = [str(ROOT), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    return install


@pytest.mark.parametrize(
    ("text", "told", "words"),
    [
        ("os.kill(os.getpid(), 11)", r"died by signal 11 \(Segmentation fault\)", ""),
        ("os.kill(os.getpid(), 9)", r"died by signal 9 \(Killed, often for a lack of memory\)", ""),
        ("os._exit(3)", "ended with status 3", "its last words"),
    ],
)
def test_how_a_compiler_ended_is_told_in_one_line(text, told, words, recipe, monkeypatch, capsys):
    program = f"import os, sys\nsys.stderr.write('its last words')\nsys.stderr.flush()\n{text}"
    monkeypatch.setattr(compilation, "_PROGRAM", program)
    with pytest.raises(UserError, match=f"^--target=h100: its compiler {told}$"):
        compilation.compiled(recipe, TARGET)
    assert capsys.readouterr() == ("", words)


def test_a_compiler_that_dies_leaves_the_arithmetic_and_a_note(compiler, run_cli):
    compiler("os.kill(os.getpid(), 11)")
    done = run_cli(
        "plan", "--config=demo", "--target=v6e:2x2", "--classes=100", "--images=6400", env={}
    )
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout
    (note,) = [line for line in done.stdout.splitlines() if "arithmetic alone" in line]
    assert note.endswith("v6e:2x2: its compiler died by signal 11 (Segmentation fault)")
    assert all(line.startswith("plan: ") for line in done.stderr.splitlines()), done.stderr


@pytest.mark.slow  # starts two programs for each signal
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_compiler_ends_with_its_plan(number, compiler, tmp_path):
    """Let it hold a pipe, whose end tells."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ours = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    compiler(
        f"held = os.open({str(pipe)!r}, os.O_WRONLY)\nos.write(held, b'begun')\ntime.sleep(600)"
    )
    command = [sys.executable, "-m", "uniface_jax.plan", "--config=demo", "--target=v6e:2x2"]
    plan = subprocess.Popen(
        [*command, "--classes=100", "--images=6400"], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for said in (b"begun", b""):
        assert select.select([ours], [], [], 60)[0]
        assert os.read(ours, 8) == said
        plan.send_signal(number)
    _, error = plan.communicate(timeout=60)
    assert plan.returncode == (130 if number == signal.SIGINT else -number), error
    os.close(ours)
