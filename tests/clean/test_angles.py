"""Images far from their class's dominant sub-center, by the command on a trained workdir."""

import csv
import json

import numpy as np
import pytest

from tests.helpers import demo_run
from uniface_jax.checkpoints import reading
from uniface_jax.clean.angles import angle_findings
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.head.subcentres import dominant
from uniface_jax.inference.embedder import Embedder


def test_the_farthest_first():
    """A class of three images and one of two, each with an image that its second prototype has."""
    prototypes = np.zeros((2, 2, 3))
    prototypes[:, 0, 0], prototypes[:, 1, 1] = 1, 2
    features = np.array([[1, 0, 0], [3, 0.1, 0], [0, 1, 0], [1, 0, 1], [1, 0.2, 5.0]])
    found = angle_findings(features, np.array([0, 0, 0, 1, 1]), prototypes, 40.0)
    assert [(f.image, f.label, round(f.score)) for f in found] == [
        (2, 0, 90),
        (4, 1, 79),
        (3, 1, 45),
    ]
    assert found[0].reason.startswith("90.0 degrees from prototype 0 of 2")
    (only,) = angle_findings(features, np.array([0, 0, 0, 1, 1]), prototypes[:, 0], 80.0)
    assert only.image == 2
    with pytest.raises(UserError, match="features of 3 numbers, and prototypes of 2"):
        angle_findings(features, np.zeros(5, int), prototypes[..., :2], 40.0)


def test_what_has_no_prototypes_of_the_set(run_cli, tmp_path):
    asked = ("--checks=subcenters", f"--output={tmp_path / 'out'}")
    for arguments, words in (
        (("--embeddings=f.npy", *asked), "takes the prototypes of --model=WORKDIR"),
        ((f"--model={tmp_path / 'net.onnx'}", *asked), "net.onnx is no workdir"),
        ((f"--model={tmp_path}", "--most_angle=70", asked[1]), "--most_angle: counts with"),
    ):
        done = run_cli("clean", "synthetic:3:9", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_command_lists_and_drops(run_cli, tmp_path):
    train, _ = demo_run.make_data(tmp_path / "data")
    run, out = tmp_path / "run", tmp_path / "out"
    flags = demo_run.flags(train, steps=2, **{"head.subcentres": 2})
    done = run_cli("train", "--config=demo", *flags, f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    source = open_source(train)
    pixels = [source[i] for i in range(len(source))]
    prototypes, _ = reading.read_head(run)
    assert prototypes.shape == (demo_run.CLASSES, 2, 8)
    files = []
    for number, item in enumerate(pixels):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(item.image)
    features = Embedder(run).embed(files)
    degrees = dominant(features, np.array([item.label for item in pixels]), prototypes).degrees
    bound = float(np.sort(degrees)[-6:-4].mean())
    done = run_cli(
        "clean", train, f"--model={run}", "--checks=subcenters", f"--most_angle={bound}",
        f"--output={out}", f"--apply={tmp_path / 'new'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "findings.json").read_text())
    assert found["limits"]["angle"] == bound
    assert [f["image"] for f in found["findings"]] == np.argsort(-degrees)[:5].tolist()
    np.testing.assert_allclose(
        [f["score"] for f in found["findings"]], np.sort(degrees)[:-6:-1], atol=0.01
    )
    with (out / "findings.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["kind"] for row in rows] == ["off_center"] * 5
    assert len(open_source(tmp_path / "new")) == len(source) - 5
    done = run_cli(
        "clean", "synthetic:3:9", f"--model={run}", "--checks=subcenters", f"--output={out}"
    )
    assert done.returncode == 2
    assert "was trained on 5 classes, and the set has 3" in done.stderr
