"""Bytes and kernels of a step, which no change may raise by 2 % without saying so."""

import json
import os
import subprocess
import sys

import count_program
import pytest

from tests.helpers.accelerators import FOR_GPU
from tests.helpers.paths import ROOT
from uniface_jax.errors import UserError

FILE = ROOT / "tests" / "plan" / "budgets.json"
BUDGETS = json.loads(FILE.read_text())


def test_each_network_has_one_and_eight_devices():
    cases = [(budget["case"]["network"], budget["case"]["devices"]) for budget in BUDGETS.values()]
    one = [(network, 1) for network in ("lresnet100", "lresnet50", "mbf", "vit_b")]
    assert sorted(cases) == sorted([*one, ("lresnet50", 8)])
    for name, budget in BUDGETS.items():
        assert name == count_program.name_of(budget["case"])
        kinds = dict(budget["counts"])
        total = kinds.pop("all")
        for unit in ("kernels", "bytes"):
            assert total[unit] == sum(kind[unit] for kind in kinds.values()) > 100


@pytest.mark.parametrize("unit", ["kernels", "bytes"])
def test_two_percent_more_are_told(unit):
    budget = {"reduction": {"kernels": 1000, "bytes": 1000}, "all": {"kernels": 0, "bytes": 0}}
    for more, told in (
        (-500, []),
        (20, []),
        (21, [f"reduction: 1,021 {unit}; the budget is 1,000"]),
    ):
        counts = {"reduction": budget["reduction"] | {unit: 1000 + more}}
        assert count_program.raised(counts, budget) == told
    assert len(count_program.raised({"new": {unit: 1}}, budget)) == 1


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "budgets.json"
    file.write_text("[]")
    with pytest.raises(UserError, match="not the budgets"):
        count_program.read_budgets(file, may_be_new=True)
    with pytest.raises(UserError, match="--write_budget writes it"):
        count_program.read_budgets(tmp_path / "none.json", may_be_new=False)


def test_a_step_is_a_recipes_or_of_its_own():
    config, images, classes = count_program.chosen({"target": "h100", "config": "ms1mv3:r50"})
    assert (config.model.name, config.batch_size, classes) == ("lresnet50", 1024, 93_431)
    assert images == 5_179_510
    with pytest.raises(UserError, match="nowhere"):
        count_program.chosen({"config": "nowhere"})
    for budget in BUDGETS.values():
        config, *sizes = count_program.chosen(budget["case"])
        assert sizes == [490_623, 10_572]
        assert config.model.vit.attention == budget["case"]["attention"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=FOR_GPU, id="{network}-{devices}".format(**budget["case"]))
        for name, budget in BUDGETS.items()
    ],
)
def test_a_step_is_within_its_budget(name):
    """Count as the budget was counted: by the script, and without the flags of these tests."""
    flags = [f"--{key}={value}" for key, value in BUDGETS[name]["case"].items()]
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    command = [sys.executable, "scripts/count_program.py", *flags, f"--budget={FILE}"]
    done = subprocess.run(
        command, cwd=ROOT, env=env | {"LIBTPU_INIT_ARGS": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within 2% of the budget" in done.stdout
