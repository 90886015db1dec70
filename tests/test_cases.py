"""Every case of tests/cases, or of the folder that UNIFACE_CASES names, run as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import cases, small_workdir
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.forked_commands import Ended
from tests.helpers.paths import ROOT

CASES = Path(os.environ.get("UNIFACE_CASES", ROOT / "tests" / "cases"))


def name(case: Path) -> str:
    return f"{case.parent.name}/{case.name}"


# Of many commands: these take as long as all the others, and have their turn in the slow part.
LONG = (
    "hostile/10-onnx", "hostile/37-compare", "field/09-unusable-training-image",
    "field/14-epochs-ignored", "field/17-own-pairs", "field/06-bin-by-numpy",
    "field/11-onnx-other-shapes",
)  # fmt: skip
IN_ONE_PROCESS = [
    pytest.param(case, id=name(case), marks=[pytest.mark.slow] if name(case) in LONG else [])
    for case in cases.found(CASES)
]


def of_other_imports() -> Iterator:
    """Yield the first case of each command, and each that sets a variable of the environment.

    What a fork has in advance, and a process of its own has not, are a command's imports: they go
    by the command and its environment, and by nothing else of a case.
    """
    seen: set[str] = set()
    for case in cases.found(CASES):
        commands, environments = cases.commands_of(case)
        if environments or not commands <= seen:
            seen |= commands
            yield pytest.param(case, id=name(case))


# A process's peak of memory is that of what it was forked from, too: of a small one, not of pytest.
LAUNCHER = """
import json, os, sys
from tests.helpers.waiting import wait

child = os.fork()
if not child:
    os.setsid()
    os.dup2(2, 1)
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
print(json.dumps(wait(child, float(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def trained(forked, tmp_path_factory):
    """(folder to start commands in, a workdir of two steps of a thin demo, its ONNX)."""
    folder = tmp_path_factory.mktemp("cases")
    return folder, *small_workdir.make(forked, folder)


def places(case, trained, out):
    _, workdir, model = trained
    return cases.Places(case, case.parents[1], out, workdir, model)


@pytest.mark.parametrize("case", IN_ONE_PROCESS)
def test_a_case(case, trained, forked, tmp_path):
    def run(arguments: list[str], env: dict[str, str], seconds: float) -> Ended:
        return forked.run(arguments, trained[0], tmp_path / "log", env, seconds)

    (tmp_path / "out").mkdir()
    cases.walk(places(case, trained, tmp_path / "out"), run)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(of_other_imports()))
def test_a_case_in_processes_of_its_own(case, trained, tmp_path):
    def run(arguments: list[str], env: dict[str, str], seconds: float) -> Ended:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = ["-m", f"uniface_jax.{arguments[0]}", *arguments[1:]]
        with (tmp_path / "log").open("wb") as log:
            answer = subprocess.run(
                [sys.executable, "-c", LAUNCHER, str(seconds), *command],
                cwd=trained[0],
                env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": FAST_COMPILATION, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                check=True,
            ).stdout
        output = (tmp_path / "log").read_text("utf-8", "backslashreplace")
        return Ended(output=output, **json.loads(answer))

    (tmp_path / "out").mkdir()
    cases.walk(places(case, trained, tmp_path / "out"), run)


def test_a_page_that_runs_or_fetches_is_found():
    assert cases.dangers("<script>1</script>") == ["script"]
    assert cases.dangers('<img src="data:image/png;base64,AA" onerror=alert(1)>')
    assert cases.dangers('<a href="javascript:alert(1)">x</a>')
    assert cases.dangers('<meta http-equiv=Refresh content="0;url=//a">')
    assert not cases.dangers('<p>&lt;script&gt;</p><img src="data:image/png;base64,AA">')
