"""The verification protocol on small sets of random images, with a model made of a few pixels."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.feature_sources import computed_features, corners, corners_both
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.metrics.verification import verification_metrics
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.verification import row, run
from uniface_jax.inference.model import Model


def write_set(path, seed, pairs=20, people=5):
    """Pairs of noisy copies of random images; returns the decoded images in the file's order."""
    rng = np.random.default_rng(seed)
    faces = rng.integers(40, 216, (people, 112, 112, 3))
    first, second, same = [], [], []
    images = []
    for i in range(pairs):
        who = rng.permutation(people)[:2]
        who[1] = who[0] if i % 2 == 0 else who[1]
        noisy = [np.clip(faces[w] + rng.normal(0, 30, faces[w].shape), 0, 255) for w in who]
        images += [image.astype(np.uint8) for image in noisy]
        first.append(2 * i)
        second.append(2 * i + 1)
        same.append(i % 2 == 0)
    write_pairs(path, [encode_png(image) for image in images], first, second, same)
    return np.stack(images), np.array(first), np.array(second), np.array(same)


def test_files_and_folders_are_evaluated_by_name(tmp_path):
    (tmp_path / "more").mkdir()
    decoded = write_set(tmp_path / "more" / "beta.bin", 1)
    write_set(tmp_path / "more" / "alpha.bin", 2)
    write_set(tmp_path / "gamma.bin", 3, pairs=12)
    parts = Parts([tmp_path / "gamma.bin", tmp_path / "more"])
    found = run(parts, computed_features(tmp_path / "kept"), Options([0.1]))
    assert list(found) == ["gamma", "alpha", "beta"]
    beta = json.loads(json.dumps(found["beta"].metrics))
    content = (tmp_path / "more" / "beta.bin").read_bytes()
    assert beta.pop("file") == str(tmp_path / "more" / "beta.bin")
    assert beta.pop("sha256") == hashlib.sha256(content).hexdigest()
    assert beta.pop("images") == 40
    assert Path(beta.pop("features")).parent == tmp_path / "kept"
    images, first, second, same = decoded

    class Pairs:
        pass

    Pairs.first, Pairs.second, Pairs.same = first, second, same
    without = beta.pop("without_mirror")
    assert beta == verification_metrics(corners_both(images), Pairs, [0.1])
    assert without == verification_metrics(corners(images), Pairs, [0.1])
    assert beta["auc"] > 0.9
    assert without["tar_at_far"] != beta["tar_at_far"]


def test_the_hardest_pairs_are_shown_with_their_pictures(tmp_path):
    images, first, second, same = write_set(tmp_path / "set.bin", 4, pairs=30)
    found = run(Parts([tmp_path / "set.bin"]), computed_features(tmp_path / "kept"), Options())
    features = corners_both(images).astype(float)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.sum(unit[first] * unit[second], axis=1)
    shown = found["set"].drawings["pairs"]
    assert [p["score"] for p in shown["same"]] == pytest.approx(sorted(cosines[same])[:8])
    highest = sorted(cosines[~same], reverse=True)[:8]
    assert [p["score"] for p in shown["different"]] == pytest.approx(highest)
    assert shown["same"][0]["sides"][0]["picture"].startswith("data:image/jpeg;base64,")
    pair = int(np.argmin(np.where(same, cosines, 2)))
    assert shown["same"][0]["sides"][1]["label"] == f"pair {pair}, second"


def refuse_to_embed(batch):
    raise AssertionError("embedded before the data was checked")


def test_unusable_data_is_named_before_anything_is_embedded(tmp_path):
    model = Model(refuse_to_embed, "none", "", "")
    write_set(tmp_path / "good.bin", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "copy").mkdir()
    write_set(tmp_path / "copy" / "good.bin", 1)
    write_set(tmp_path / "few.bin", 2, pairs=9)
    (tmp_path / "cut.bin").write_bytes((tmp_path / "good.bin").read_bytes()[:999])
    cases = {
        "missing.bin": r"missing\.bin: no such file",
        "empty": r"empty: no \.bin file",
        "copy": r"copy/good\.bin: a second set called good",
        "few.bin": r"few\.bin: 9 pairs; 10 folds",
        "cut.bin": r"cut\.bin: ",
    }
    for name, message in cases.items():
        parts = Parts([tmp_path / "good.bin", tmp_path / name])
        with pytest.raises(UserError, match=message):
            run(parts, computed_features(tmp_path / "kept", model), Options())


def test_a_model_that_gives_nan_is_named_with_the_set(tmp_path):
    write_set(tmp_path / "good.bin", 1)
    model = Model(lambda batch: np.full((len(batch), 4), np.nan, np.float32), "broken", "", "")
    with pytest.raises(UserError, match=r"good\.bin: image 0 .*holds nan"):
        run(Parts([tmp_path / "good.bin"]), computed_features(tmp_path / "kept", model), Options())


def test_a_set_that_is_not_balanced_shows_its_base_rate_and_the_rates_first(tmp_path):
    balanced = {
        "pairs": 6000, "same": 3000, "different": 3000, "auc": 0.9,
        "accuracy": {"mean": 0.98, "std": 0.01},
        "tar_at_far": [{"far": 0.01, "resolvable": True, "strict": {"tar": 0.86}}],
    }  # fmt: skip
    assert list(row(balanced)) == ["pairs", "AUC", "10-fold accuracy", "TAR@FAR≤0.01"]
    cells = row({**balanced, "pairs": 4950, "same": 450, "different": 4500})
    assert list(cells) == ["pairs", "TAR@FAR≤0.01", "AUC", "10-fold accuracy", "base rate"]
    assert cells["base rate"] == "90.91%"
    mostly_same = row({**balanced, "pairs": 4000, "different": 1000})
    assert mostly_same["base rate"] == "75.00%"
