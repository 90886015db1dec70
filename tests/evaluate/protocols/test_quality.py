"""Errors versus rejected pairs by each score, from files; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.feature_sources import FixedFeatures, computed_features, corners_both
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.metrics.quality import error_versus_reject
from uniface_jax.evaluate.metrics.verification import pair_scores
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.quality import QUALITY, run
from uniface_jax.inference.model import QualityHead

SAME = np.arange(12) % 2 == 0


@pytest.fixture
def faces(tmp_path):
    """(folder of faces/N.png, pairs.csv and pairs.bin, the images' features)."""
    images = np.random.default_rng(4).integers(0, 256, (24, 112, 112, 3), np.uint8)
    (tmp_path / "faces").mkdir()
    rows = []
    for number, image in enumerate(images):
        (tmp_path / "faces" / f"{number}.png").write_bytes(encode_png(image))
    for pair, same in enumerate(SAME):
        rows.append(f"faces/{2 * pair}.png,faces/{2 * pair + 1}.png,{int(same)}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    first = np.arange(0, 24, 2)
    write_pairs(tmp_path / "bin.bin", list(map(encode_png, images)), first, first + 1, SAME)
    return tmp_path, corners_both(images).astype(np.float64)


def expected(features, quality):
    first = np.arange(0, 24, 2)
    scores = pair_scores(features, first, first + 1)
    worse = np.minimum(quality[first], quality[first + 1])
    return error_versus_reject(scores, SAME, worse, [0.2])


def evaluated(folder, data, **named):
    parts = Parts([folder / data], named)
    return run(parts, computed_features(folder / "kept"), Options([0.2]))[data.split(".")[0]]


@pytest.mark.parametrize("data", ["pairs.csv", "bin.bin"])
def test_norm_and_table(faces, data):
    folder, features = faces
    norms = np.linalg.norm(features, axis=1)
    found = evaluated(folder, data)
    assert found.metrics["error_versus_reject"] == expected(features, norms)
    assert found.metrics["score"] == "norm"
    quality = np.random.default_rng(1).normal(size=24)
    name = "faces/{}.png" if data == "pairs.csv" else "{}"
    lines = [f"{name.format(i)},{value}" for i, value in enumerate(quality)]
    (folder / "scores.csv").write_text("\n".join(["image,score", *lines]))
    found = evaluated(folder, data, score=folder / "scores.csv")
    assert found.metrics["error_versus_reject"] == expected(features, quality)
    cells = QUALITY.row(found.metrics)
    assert cells["score"] == str(folder / "scores.csv")
    assert "→" in cells["FNMR@FMR≈0.2, 0 → 20 %"]
    assert list(found.drawings["reject"]["lines"]) == ["FMR 0.2"]


def test_what_the_network_has_learned(faces):
    folder, features = faces
    head = QualityHead(np.linspace(-1, 1, features.shape[1], dtype=np.float32), 0.25, images=2)
    source = computed_features(folder / "kept")
    parts = Parts([folder / "pairs.csv"], {"score": Path("learned")})
    with pytest.raises(UserError, match=r"score=learned: .* has no quality head; only a workdir"):
        run(parts, source, Options([0.2]))
    assert not (folder / "kept").exists()  # nothing was computed
    source.quality = head
    found = run(parts, source, Options([0.2]))["pairs"]
    assert found.metrics["error_versus_reject"] == expected(features, head(features))
    assert found.metrics["score"] == "learned"


def test_the_detectors_scores(faces):
    folder, features = faces
    quality = np.linspace(0.5, 1, 24)[::-1]
    report = {
        "faces": {f"{i}.jpg": {"file": f"faces/{i}.png", "score": q} for i, q in enumerate(quality)}
    }
    (folder / "alignment.json").write_text(json.dumps(report))
    found = evaluated(folder, "pairs.csv", score="detector")
    assert found.metrics["error_versus_reject"] == expected(features, quality)
    with pytest.raises(UserError, match=r"bin\.bin: the detector's scores stand in alignment.json"):
        evaluated(folder, "bin.bin", score="detector")
    report["faces"]["3.jpg"]["score"] = None
    (folder / "alignment.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"alignment\.json: no score of .*3\.png"):
        evaluated(folder, "pairs.csv", score="detector")


@pytest.mark.parametrize(("text", "message"), [
    ("image,score\nfaces/0.png,high\n", r"line 2: 'faces/0\.png,high'; expected image,score"),
    ("faces/0.png,nan\n", "line 1: "),
    ("faces/0.png,inf\n", "line 1: "),
    ("1\n", "line 1: "),
    ("faces/0.png,1\nfaces/0.png,2\n", r"line 2: faces/0\.png again"),
    ("faces/0.png,1\n", r"no score of .*faces/2\.png"),
])  # fmt: skip
def test_other_tables_are_refused(faces, text, message):
    folder, _ = faces
    (folder / "scores.csv").write_text(text)
    with pytest.raises(UserError, match=rf"scores\.csv: {message}"):
        evaluated(folder, "pairs.csv", score=folder / "scores.csv")


def test_pairs_and_the_table_are_needed(faces):
    folder, _ = faces
    with pytest.raises(UserError, match="quality: no pairs, only score= or root="):
        run(Parts([], {"score": folder}), FixedFeatures(None), Options())
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        evaluated(folder, "bin.bin", score=folder / "none.csv")
