"""The protocol on a small directory of IJB's form, against loops over its lines; and its errors."""

import numpy as np
import pytest

from tests.helpers.feature_sources import FixedFeatures, computed_features, corners_both
from tests.helpers.make_ijb import make_ijb
from uniface_jax.data.faces.alignment import align
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.formats.landmarks import TEMPLATE
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.ijb.protocol import IJB, run
from uniface_jax.evaluate.protocols.ijb.templates import template_features


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return make_ijb(tmp_path_factory.mktemp("synthetic"))


def table(file, skip=0, separator=None):
    return [line.split(separator) for line in file.read_text().splitlines()[skip:]]


def templates_of(folder, features):
    """{template id: feature} by loops over the meta files, in float64."""
    meta = folder / "meta"
    scores = [float(row[-1]) for row in table(meta / "ijbc_name_5pts_score.txt")]
    media = {}
    for i, (_, template, medium) in enumerate(table(meta / "ijbc_face_tid_mid.txt")):
        weighed = features[i].astype(float) * scores[i]
        media.setdefault(int(template), {}).setdefault(int(medium), []).append(weighed)
    found = {}
    for template, of in media.items():
        total = sum(np.mean(images, axis=0) for images in of.values())
        found[template] = total / np.linalg.norm(total)
    return found


def test_one_to_one_is_that_of_a_plain_loop(synthetic):
    folder, features = synthetic
    found = run(Parts([folder]), FixedFeatures(features), Options())["ijbc"].metrics
    templates = templates_of(folder, features)
    rows = table(folder / "meta/ijbc_template_pair_label.txt")
    scores = np.array([templates[int(a)] @ templates[int(b)] for a, b, _ in rows])
    same = np.array([label == "1" for _, _, label in rows])
    assert (found["pairs"], found["same"], found["templates"]) == (
        len(rows), same.sum(), len(templates)
    )  # fmt: skip
    wins = np.searchsorted(np.sort(scores[~same]), scores[same]).mean() / (~same).sum()
    assert found["auc"] == pytest.approx(wins, abs=1e-9)
    for entry in found["tar_at_far"]:
        negatives = np.sort(scores[~same])[::-1]
        barrier = negatives[int(entry["far"] * len(negatives))] if entry["far"] < 1 else -2
        assert entry["strict"]["tar"] == np.mean(scores[same] > barrier)
    tars = [entry["strict"]["tar"] for entry in found["tar_at_far"]]
    assert 0 < tars[0] < tars[-1]


def test_search_is_that_of_a_plain_loop(synthetic):
    folder, features = synthetic
    found = run(Parts([folder]), FixedFeatures(features), Options())
    templates = templates_of(folder, features)
    files = {
        key: [(int(a), int(b)) for a, b, _ in table(folder / f"meta/ijbc_1N_{key}.csv", 1, ",")]
        for key in ("gallery_G1", "gallery_G2", "probe_mixed")
    }
    galleries = {"G1": files["gallery_G1"], "G2": files["gallery_G2"]}
    galleries["all"] = galleries["G1"] + galleries["G2"]
    for key, gallery in galleries.items():
        metrics = found[f"ijbc_1N_{key}"].metrics
        ranks, first, unknown = [], [], []
        for template, subject in files["probe_mixed"]:
            scores = {s: templates[template] @ templates[t] for t, s in gallery}
            if subject not in scores:
                unknown.append(max(scores.values()))
                continue
            rank = sum(score >= scores[subject] for score in scores.values())
            ranks.append(rank)
            if rank == 1:
                first.append(scores[subject])
        assert metrics["closed_set"]["gallery"] == len(gallery)
        for entry in metrics["closed_set"]["ranks"]:
            assert entry["hits"] == sum(rank <= entry["rank"] for rank in ranks)
        assert ("open_set" in metrics) == (key != "all")
        for entry in metrics.get("open_set", ()):
            barrier = sorted(unknown, reverse=True)[int(entry["target"] * len(unknown))]
            assert entry["tpir"] == sum(score > barrier for score in first) / len(ranks)
        assert IJB.row(metrics)["rank 1"] == f"{ranks.count(1) / len(ranks):.2%}"


@pytest.fixture
def photographs(tmp_path):
    """(folder, crops) of eight images of four templates with landmarks off the template."""
    rng = np.random.default_rng(3)
    meta, crops = tmp_path / "meta", tmp_path / "loose_crop"
    meta.mkdir()
    crops.mkdir()
    faces, ids, points = [], [], []
    for i in range(8):
        face = rng.integers(0, 256, (150 + i, 140, 3), np.uint8)
        (crops / f"{i}.png").write_bytes(encode_png(face))
        landmarks = TEMPLATE * (1 + i / 20) + i
        ids.append(f"{i}.png {10 + i // 2} {i}\n")
        numbers = " ".join(f"{x:.4f}" for x in landmarks.ravel())
        points.append(f"{i}.png {numbers} 0.{i + 1}\n")
        faces.append(align(face, np.float32([float(x) for x in numbers.split()]).reshape(5, 2)))
    (meta / "ijbb_face_tid_mid.txt").write_text("".join(ids))
    (meta / "ijbb_name_5pts_score.txt").write_text("".join(points))
    (meta / "ijbb_template_pair_label.txt").write_text("10 11 1\n11 12 0\n12 13 1\n13 10 0\n")
    return tmp_path, np.stack(faces)


def test_faces_are_aligned_weighed_and_shown(photographs):
    folder, faces = photographs
    result = run(Parts([folder]), computed_features(folder / "kept"), Options([0.5]))["ijbb"]
    weighed = corners_both(faces) * np.float32([0.1 * (i + 1) for i in range(8)])[:, None]
    _, templates = template_features(weighed, np.arange(8) // 2, np.arange(8))
    scores = [templates[i] @ templates[(i + 1) % 4] for i in range(4)]
    shown = result.drawings["pairs"]
    assert [p["score"] for p in shown["same"]] == pytest.approx(sorted(scores[::2]))
    assert shown["same"][0]["sides"][0]["picture"].startswith("data:image/jpeg")
    assert "2 images" in shown["same"][0]["sides"][0]["label"]
    assert "pairs" in IJB.row(result.metrics)
    assert list(run(Parts([folder]), computed_features(folder / "kept"), Options([0.5]))) == [
        "ijbb"
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta/ijbb_template_pair_label.txt", "10 11 1\n10 99 0\n", r"\.txt: line 2: template 99"),
        ("meta/ijbb_template_pair_label.txt", "10 11 1\n10 12", r"label\.txt: line 2: '10 12'"),
        ("meta/ijbb_template_pair_label.txt", "10 11 1\n", "all 1 pairs are of one kind"),
        ("meta/ijbb_name_5pts_score.txt", "0.png 1 2 3\n", r"score\.txt: line 1: '0\.png 1 2 3'"),
        ("meta/ijbb_1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n10,1\n", "but no ijbb_1N_"),
        ("meta/ijbc_face_tid_mid.txt", "0.png 1 2\n", "2 of the files meta/ijbb_face_tid_mid"),
        ("loose_crop/5.png", "no image", r"5\.png: not an image"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(photographs, file, content, message):
    folder, _ = photographs
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=message):
        run(Parts([folder]), computed_features(folder / "kept"), Options())


HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"


@pytest.mark.parametrize(
    ("gallery", "probes", "message"),
    [
        (f"{HEAD}10,1,a\n99,2,b\n", f"{HEAD}12,1,c\n", r"G1\.csv: line 3: template 99 has no"),
        (f"{HEAD}10,1,a\n", f"{HEAD}12,1,c\n12,1,d\n77,2,d\n", r"mixed\.csv: line 4: template 77"),
        (f"{HEAD}10,1,a\n11,1,b\n", f"{HEAD}12,1,c\n", r"G1\.csv: line 3: template 11 is a"),
        (f"{HEAD}10,1,a\n", f"{HEAD}12,1,c\n12,2,d\n", r"mixed\.csv: line 3: template 12 is"),
        ("10,1,a\n", f"{HEAD}12,1,c\n", r"G1\.csv: line 1: '10,1,a'; expected TEMPLATE_ID"),
        (f"{HEAD}10,1,a\n11\n", f"{HEAD}12,1,c\n", r"G1\.csv: line 3: '11'; expected TEMPLATE_ID"),
        (f"{HEAD}10,1,a\n", f"{HEAD}12,x,c\n", r"mixed\.csv: line 2: '12,x,c'"),
        (f"{HEAD}10,1,a\n", HEAD, r"mixed\.csv: no templates"),
        (f"{HEAD}10,1,a\n", f"{HEAD}12,2,c\n", r"mixed\.csv: no probe has its subject in the gall"),
    ],
)  # fmt: skip
def test_damaged_search_files_name_their_line(photographs, gallery, probes, message):
    folder, _ = photographs
    (folder / "meta/ijbb_1N_gallery_G1.csv").write_text(gallery)
    (folder / "meta/ijbb_1N_probe_mixed.csv").write_text(probes)
    with pytest.raises(UserError, match=message):
        run(Parts([folder]), computed_features(folder / "kept"), Options())


def test_landmarks_that_are_one_point_name_their_line(photographs):
    folder, _ = photographs
    file = folder / "meta/ijbb_name_5pts_score.txt"
    lines = file.read_text().splitlines()
    lines[6] = "6.png" + " 3" * 10 + " 0.5"
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"score\.txt: line 7: a similarity transform needs"):
        run(Parts([folder]), computed_features(folder / "kept"), Options())
