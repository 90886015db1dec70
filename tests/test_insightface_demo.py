"""From a download in insightface's layout to a verification result, by the three commands."""

import json

import pytest

from tests.helpers import mxnet_fixtures
from tests.helpers.demo_run import flags
from uniface_jax.data.conversion.manifest import read_manifest


@pytest.mark.slow
def test_convert_train_evaluate(fixtures_folder, run_cli, tmp_path):
    data, run, results = tmp_path / "set", tmp_path / "run", tmp_path / "results"
    converted = run_cli("convert", fixtures_folder / "insightface", data, "--verify")
    assert converted.returncode == 0, converted.stderr
    images = len(mxnet_fixtures.expected(fixtures_folder / "insightface"))
    assert f"verified: source and data set hold the same {images} images" in converted.stdout
    classes = mxnet_fixtures.num_classes(fixtures_folder / "insightface")
    assert read_manifest(data).classes == classes

    overrides = flags(data, steps=60, **{"checkpoint.every_steps": 30, "log.every_steps": 20})
    trained = run_cli("train", "--config=demo", f"--workdir={run}", *overrides)
    assert trained.returncode == 0, trained.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]

    for form in ("py3", "py2", "numpy"):
        pairs = fixtures_folder / "bins" / f"{form}.bin"
        evaluated = run_cli(
            "evaluate", f"--model={run}", "--protocol=verification", f"--data={pairs}",
            f"--output={results / form}",
        )  # fmt: skip
        assert evaluated.returncode == 0, evaluated.stderr
        assert form in evaluated.stdout
        assert (results / form).is_dir()
    malicious = fixtures_folder / "bins" / "malicious.bin"
    refused = run_cli(
        "evaluate", f"--model={run}", "--protocol=verification", f"--data={malicious}"
    )
    assert refused.returncode == 2
    assert "refused, the pickle holds the global 'posix.system'" in refused.stderr
