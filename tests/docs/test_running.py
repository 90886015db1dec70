"""The pages' commands run as they are printed, on tiny data and networks, page by page.

Every page starts in a folder of its own, which holds small stand-ins for what a reader has.
Training gets flags behind the printed ones that make it tiny, and planning a shallower network.
"""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.helpers import console, doc_commands
from tests.helpers.demo_run import make_data
from tests.helpers.paths import FIXTURES, ROOT
from tests.helpers.trained_networks import trained_looking
from uniface_jax import models
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.weights.names import to_state
from uniface_jax.weights.state_files import write_safetensors

BLOCKS = [block for page in doc_commands.PAGES for block in doc_commands.blocks(page)]
FAST = "README.md"
# Tests of their own run these pages' commands, from a folder outside of the checkout.
ELSEWHERE = {str(p.relative_to(ROOT)) for p in (ROOT / "docs" / "how-to").glob("add-*.md")}
RUN_HERE = sorted(
    {block.page for block in BLOCKS if block.not_run is None and block.page not in ELSEWHERE},
    key=[block.page for block in BLOCKS].index,
)
SHALLOW = (1, 1, 1, 1)
PLANNED = (2, 1, 1, 1)  # probes of one block a stage, and of a deeper stage
TINY = {
    "model.stage_sizes": f"'{SHALLOW}'",
    "model.width": 4,
    "model.embedding_size": 8,
    "batch_size": 16,
    "steps": 2,
    "checkpoint.every_steps": 2,
    "data.threads": 1,
}
# What these pages make themselves.
NOT_THERE_YET = {
    "README.md": "data/mine",
    "docs/tutorials/your-own-data.md": "data/mine",
    "docs/tutorials/first-faces.md": "runs/demo",
}
TRAINING = ("uniface train", "python scripts/launch_local.py")
# Of networks that have learned nothing the MFR's check fails one rule, and says so.
STATUSES = {"uniface export --check": (0, 1)}


@pytest.fixture(scope="module")
def belongings(tmp_path_factory):
    """Make what a reader of the pages has: photographs, downloads, a run, an ONNX file."""
    folder = tmp_path_factory.mktemp("reader")
    for person in ("s1", "s2", "s3", "s4"):
        (folder / "photographs" / person).mkdir(parents=True)
        for number in range(1, 7):
            photograph = Image.open(orl_folder() / person / f"{number}.pgm")
            photograph.save(folder / "photographs" / person / f"{number}.png")
    for name, number in (("first.jpg", 1), ("second.jpg", 2)):
        Image.open(orl_folder() / "s1" / f"{number}.pgm").save(folder / name)
    made = tmp_path_factory.mktemp("made")
    train, pairs = make_data(made)
    for name in ("others", "people"):
        shutil.copytree(made / "people", folder / name)
    people = sorted(path.name for path in (folder / "people").iterdir())
    lines = [f"{person},{'ab'[i % 2]}\n" for i, person in enumerate(people)]
    (folder / "people.csv").write_text("".join(lines))
    shutil.copytree(train, folder / "data" / "mine")
    (folder / "data" / "eval").mkdir()
    for name in ("lfw.bin", "agedb_30.bin", "data/eval/lfw.bin", "data/eval/cfp_fp.bin"):
        shutil.copy(pairs, folder / name)
    for name in ("faces_emore", "faces_webface_112x112"):
        shutil.copytree(FIXTURES / "insightface", folder / name)
    before = FIXTURES / "ec4f2e5"
    shutil.copytree(before / "run", folder / "runs" / "demo")
    shutil.copytree(before / "faces", folder / "faces")
    shutil.copy(before / "model.onnx", folder / "model.onnx")
    np.save(folder / "features.npy", np.random.default_rng(0).normal(size=(40, 8)))
    network = models.create("iresnet50", stage_sizes=SHALLOW, width=4, embedding_size=8)
    state = to_state(network, trained_looking(network))
    write_safetensors(folder / "backbone.safetensors", jax.tree.map(np.asarray, state), {})
    for name in ("scripts", "configs"):
        (folder / name).symlink_to(ROOT / name)
    console.make_tools(folder / ".tools")
    return folder


def made_tiny(command: str, folder: Path) -> str:
    if command.startswith(TRAINING) and "--print_config" not in command:
        flags: dict[str, object] = dict(TINY)
        if "--config=demo" in command and "data.train" not in command:
            prepared = (folder / "runs" / "faces").exists()
            flags |= {} if prepared else {"data.train": "faces", "eval.data": "lfw.bin"}
        command = re.sub(r"\s#.*|\s--config\.epochs=\S+", "", command)
        command += "".join(f" --config.{key}={value}" for key, value in flags.items())
    if command.startswith("uniface plan") and "--config=demo" not in command:
        command += f" --config.model.stage_sizes='{PLANNED}'"
    return command


def test_every_block_is_run_or_says_why_not():
    assert {block.page for block in BLOCKS if block.not_run is None} <= {*RUN_HERE, *ELSEWHERE}
    others = [t for t in (ROOT / "tests").rglob("test_*.py") if t.parent != Path(__file__).parent]
    text = "".join(test.read_text() for test in others)
    assert all(Path(page).stem in text for page in ELSEWHERE)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if page == FAST else [pytest.mark.slow]) for page in RUN_HERE],
)
def test_page(page, belongings, forked, tmp_path):
    folder = tmp_path / "reader"
    shutil.copytree(belongings, folder, symlinks=True)
    if page in NOT_THERE_YET:
        shutil.rmtree(folder / NOT_THERE_YET[page])
    for block in BLOCKS:
        for command in block.commands if block.page == page and block.not_run is None else ():
            done = console.run(made_tiny(command, folder), folder, forked)
            allowed = next((s for c, s in STATUSES.items() if command.startswith(c)), (0,))
            output = done.stdout[-2000:] + done.stderr[-2000:]
            assert done.returncode in allowed, f"{block}: {command}\n{output}"
