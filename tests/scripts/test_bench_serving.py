"""The benchmark of the server, in short: it finds right answers right, and wrong ones wrong."""

import json
import sys

import bench_serving
import numpy as np
import pytest

from tests.helpers.onnx_graphs import face_network


@pytest.mark.slow
def test_clients_get_their_own_answers(faces, tmp_path, monkeypatch, capsys):
    # It scales its input itself: raw pixels, as the graph says.
    scaled = (("minus", "Sub", 127.5), ("by", "Mul", 1 / 127.5))
    model = face_network(tmp_path / "face.onnx", prefix=scaled, dimension=32)
    report = tmp_path / "report.json"
    given = [f"--data={faces}", f"--model={model}", "--clients=7", "--seconds=6", "--queue=4"]
    monkeypatch.setattr(sys, "argv", ["bench_serving.py", *given, f"--json={report}"])
    status = bench_serving.main()
    found = json.loads(report.read_text())
    assert (found["wrong"], found["lost"]) == ([], [])
    assert found["answers"] > 20
    assert set(found["seconds_by_route"]) == {"embed", "compare", "search"}
    assert found["p99"] >= found["p50"] > 0
    assert set(found["statuses"]) <= {"200", "503"}
    assert status == 0, capsys.readouterr().out


def test_a_swapped_answer_is_wrong():
    features = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    known = bench_serving.Known([b"a", b"b", b"c"], features, ["a", "b", "c"])
    answer = {"images": [{"faces": [{"feature": row.tolist()}]} for row in features]}
    assert bench_serving.features_are(answer, known, [0, 1, 2])
    assert not bench_serving.features_are(answer, known, [1, 0, 2])
    assert not bench_serving.features_are(answer, known, [0, 1])
