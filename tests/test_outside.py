"""Parts from outside, as docs/how-to tells: files and commands are read from those pages.

docs/how-to/add-a-source.md, add-a-loss.md, add-a-network.md, add-a-protocol.md,
add-an-augmentation.md and add-a-hook.md, in that order, in one folder outside of the checkout.
"""

import json
import re
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers import console
from tests.helpers.doc_commands import blocks
from tests.helpers.paths import ROOT

HOW_TO = ROOT / "docs" / "how-to"
PAGES = [
    "add-a-source", "add-a-loss", "add-a-network", "add-a-protocol", "add-an-augmentation",
    "add-a-hook",
]  # fmt: skip
FILE = re.compile(r'```python title="(\w+\.py)"\n(.*?)```', re.DOTALL)
EXIT_PREEMPTED = 75

# All pages followed take most of a minute; the doors have fast tests where they are.
pytestmark = pytest.mark.slow


def commands(page):
    """Return the page's commands in sh."""
    found = [c for block in blocks(HOW_TO / f"{page}.md") for c in block.commands]
    return [command for command in found if not command.startswith("python - <<")]


def start(command, folder):
    """Start a command of a page in `folder`, with the package as if it were installed."""
    return subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=console.environment(folder / ".tools"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def run(forked):
    """Returns the output of a command in a folder, which ends with `status`."""

    def run(command, folder, status=0):
        done = console.run(command, folder, forked)
        assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def outside(run, tmp_path_factory):
    """The folder in which all pages were followed, and what their commands printed."""
    folder = tmp_path_factory.mktemp("outside")
    console.make_tools(folder / ".tools")
    printed = []
    for page in PAGES:
        for name, text in FILE.findall((HOW_TO / f"{page}.md").read_text()):
            (folder / name).write_text(text)
        printed += [(command, run(command, folder)) for command in commands(page)]
    return folder, dict(printed)


def test_every_page_is_here():
    assert sorted(path.stem for path in HOW_TO.glob("add-*.md")) == sorted(PAGES)


def test_parts_do_what_they_say(outside):
    folder, _ = outside
    trained = json.loads((folder / "runs/plain/config.json").read_text())
    assert trained["imports"] == ["my_source", "my_loss", "my_network"]
    assert trained["model"]["plain_cnn"]["channels"] == 4
    tempered = json.loads((folder / "runs/tempered/config.json").read_text())
    assert tempered["loss"]["tempered"] == {"temperature": 0.1, "margin": 0.2}
    metrics = json.loads((folder / "results/metrics.json").read_text())
    found = metrics["protocols"]["centers"]["sets"]["people"]
    assert found["images"] == 40
    assert found["accuracy"] >= 0.5  # of five people: by chance 0.2
    assert "Nearest center" in (folder / "results/report.html").read_text()
    assert (folder / "runs/plain/inspection").is_dir()
    fogged = json.loads((folder / "runs/fog/config.json").read_text())
    assert fogged["data"]["augment"]["fog"] == {"density": 0.5, "probability": 0.5}
    assert (folder / "fog.png").is_file()
    mean, at = (folder / "runs/hooked/best.txt").read_text().split(" at step ")
    losses = [
        json.loads(line)["loss"]
        for line in (folder / "runs/hooked/metrics.jsonl").read_text().splitlines()
    ]
    assert float(mean) > 0
    assert int(at) in (3, 4)
    assert losses


def test_plan_of_a_network_from_outside(outside, run):
    folder, _ = outside
    plan = run(
        "uniface plan --config=demo --config.imports=my_network --config.model.name=plain_cnn "
        "--config.model.plain_cnn.channels=4 --devices=2 --classes=1000 --images=6400 "
        "--json=plan.json",
        folder,
    )
    assert "fits" in plan
    found = json.loads((folder / "plan.json").read_text())
    layers = ((9 * 3, 4), (9 * 4, 8), (9 * 8, 16), (9 * 16, 32), (32, 128))
    parameters = sum((inputs + 1) * outputs for inputs, outputs in layers)
    assert found["needs"]["network"] == 4 * parameters
    assert found["needs"]["prototypes"] == 4 * 500 * 128


def test_results_of_a_protocol_that_is_not_registered_are_refused_first(outside, run):
    folder, _ = outside
    compare = "uniface evaluate --compare runs/plain results --protocol=folders --data=people"
    output = run(f"{compare} --output=both", folder, 2)
    *_, last = output.strip().splitlines()
    assert last.startswith("error: results/metrics.json: protocol 'centers' is none of verifica")
    assert last.endswith("a module of --imports registers")
    assert not (folder / "both").exists()
    again = run(f"{compare} --imports=my_protocol --output=both", folder)
    assert "Traceback" not in again
    assert "Nearest center" in (folder / "both/report.html").read_text()


def test_interrupted_and_resumed_is_bitwise_the_same(outside, run):
    """A SIGTERM once there is a checkpoint, then the same command again, in another workdir."""
    folder, _ = outside
    (command,) = (c for c in commands("add-a-network") if c.startswith("uniface train"))
    again = command.replace("runs/plain", "runs/again")
    process = start(again, folder)
    deadline = time.monotonic() + 120
    while not list((folder / "runs/again/checkpoints").glob("*/_CHECKPOINT_METADATA")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_PREEMPTED, output
    assert "resumed" in run(again, folder)
    measured = {"images_per_second", "input_share", "elapsed_seconds"}
    lines = []
    for name in ("plain", "again"):
        text = (folder / f"runs/{name}/metrics.jsonl").read_text().splitlines()
        kept = [{k: v for k, v in json.loads(t).items() if k not in measured} for t in text]
        lines.append({line["step"]: line for line in kept})
    assert lines[0][120] == lines[1][120]
    run("uniface export --workdir=runs/again --output=again.onnx", folder)
    weights = [
        {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / name).graph.initializer}
        for name in ("plain.onnx", "again.onnx")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name], err_msg=name)


def test_mistakes_end_in_one_line(outside, run):
    folder, _ = outside
    for flags, message in (
        ("--config.imports=my_nothing", "my_nothing"),
        (
            "--config.imports=my_loss --config.loss.name=tempered "
            "--config.loss.tempered.temperature=-1.0",
            "loss.tempered.temperature=-1.0: must be > 0",
        ),
    ):
        output = run(f"uniface train --config=demo {flags} --workdir=runs/none", folder, 2)
        *_, last = output.strip().splitlines()
        assert last.startswith("error: ")
        assert message in last
        assert "Traceback" not in output
    assert not (folder / "runs/none").exists()
