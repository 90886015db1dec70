"""The page of losses names them all, with the defaults and ranges that they have."""

import re

import pytest

from tests.helpers.paths import ROOT
from uniface_jax import losses
from uniface_jax.config import base
from uniface_jax.config.keys import flatten
from uniface_jax.config.ranges import allowed

PAGE = (ROOT / "docs" / "guides" / "losses.md").read_text()
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()
         if line.startswith("| ") and not line.startswith("| key")]  # fmt: skip


def written(keys):
    """Return keys with the values that stand behind them: `scale` 64, `gradient` formula."""
    return dict(re.findall(r"`([a-z0-9_.]+)` ([^,()]+?)(?= \(|,|$)", keys))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_has_a_row_with_its_defaults(name):
    (row,) = (cells for cells in CELLS if cells[0] == f"`{name}`")
    entry = losses.LOSSES.entry(name, name)
    found = written(row[3])
    assert found == {key: form(value) for key, value in entry.defaults.items()}
    for key in entry.hyperparameters:
        assert [f"`loss.{key}`", allowed(f"loss.{key}")] in CELLS


def form(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_keys_beside_have_their_defaults():
    config = flatten(base())
    beside = {
        "loss.sample_scale": "64",
        "loss.sample_margin": "0.1",
        "loss.sample_after_epochs": "1",
    }
    for cells in CELLS:
        if len(cells) == 6 and not cells[0].startswith("`"):
            for key, value in written(cells[3]).items():
                default = config[key]
                assert value in (form(default), beside.get(key), "centers"), key


def test_recipes_are_there():
    named = {name for cells in CELLS if len(cells) == 6 for name in re.findall("`(.+?)`", cells[5])}
    assert named
    readme = (ROOT / "configs" / "README.md").read_text()
    for name in named:
        assert f"`--config={name}`" in readme
