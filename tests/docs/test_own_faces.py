"""README's way from photographs to a figure, as it is printed, with nothing else at hand."""

import subprocess

import pytest
from PIL import Image

from tests.helpers import console, doc_commands
from tests.helpers.paths import ROOT
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.files.bounded_json import read_json

PEOPLE, PHOTOGRAPHS = 8, 6
# 50 steps in place of the recipe's 60 epochs.
BEHIND = {"uniface train": " --config.steps=50"}
IN_ORDER = ["align", "hold-out", "make-pairs", "convert", "train", "evaluate", "export"]


def printed() -> list[str]:
    """Return the commands and the program of README's section on one's own faces."""
    found = doc_commands.blocks(ROOT / "README.md")
    start = next(i for i, b in enumerate(found) if b.commands[0].startswith("uniface align"))
    return [command for block in found[start : start + 2] for command in block.commands]


def test_the_page_prints_the_whole_way():
    *commands, program = printed()
    assert [command.split()[1] for command in commands] == IN_ORDER
    assert "Embedder" in program
    assert "similarity" in program


@pytest.mark.slow
def test_from_photographs_to_a_figure(tmp_path):
    for person in range(1, PEOPLE + 1):
        (tmp_path / "photographs" / f"p{person}").mkdir(parents=True)
        for number in range(1, PHOTOGRAPHS + 1):
            image = Image.open(orl_folder() / f"s{person}" / f"{number}.pgm")
            image.save(tmp_path / "photographs" / f"p{person}" / f"{number}.jpg", quality=92)
    for name, number in (("first.jpg", 9), ("second.jpg", 10)):
        Image.open(orl_folder() / "s1" / f"{number}.pgm").save(tmp_path / name)
    console.make_tools(tmp_path / ".tools")
    for command in printed():
        behind = BEHIND.get(" ".join(command.split()[:2]), "")
        done = subprocess.run(
            ["bash", "-c", command + behind],
            cwd=tmp_path,
            env=console.environment(tmp_path / ".tools"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert -1 <= float(done.stdout.split()[1]) <= 1  # "cosine 0.123"
    folder = tmp_path / "runs" / "mine" / "evaluation"
    metrics = read_json(folder / "metrics.json", "evaluate writes it")
    found = metrics["protocols"]["verification"]["sets"]["held_out"]
    assert found["pairs"] == 2 * PHOTOGRAPHS * (
        PHOTOGRAPHS - 1
    )  # 15 of each of two people, doubled
    assert 0 <= found["auc"] <= 1
    assert (tmp_path / "model.onnx").is_file()
