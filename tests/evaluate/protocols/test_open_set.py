"""Open-set search in folders and tables of one's own, against plain loops; what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.feature_sources import FixedFeatures, computed_features, corners_both
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.open_set import OPEN_SET, run, searched


@pytest.fixture
def folders(tmp_path):
    """(folder of gallery/, probe/, unknown/ and table.csv, features by path)."""
    rng = np.random.default_rng(2)
    base = rng.integers(0, 256, (6, 112, 112, 3))
    lines, features = ["image,person,set"], {}
    for side, people, images in (("gallery", 4, 2), ("probe", 5, 3), ("unknown", 2, 3)):
        for person in range(people):
            name = f"q{person}" if side == "unknown" else f"p{person}"
            for number in range(images):
                face = base[person if side != "unknown" else 4 + person]
                face = np.clip(face + rng.normal(0, 100, face.shape), 0, 255).astype(np.uint8)
                path = f"{side}/{name}/{number}.png"
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(encode_png(face))
                features[path] = corners_both(face[None])[0].astype(float)
                lines.append(f"{path},{'' if side == 'unknown' else name},{side}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, features


def folder_parts(folder):
    return {side: folder / side for side in ("gallery", "probe", "unknown")}


def plain_rates(features, ranks, target):
    """Rates by rank, and the largest TPIR with an FPIR of at most the target."""
    unit = {path: feature / np.linalg.norm(feature) for path, feature in features.items()}
    gallery = [path for path in unit if path.startswith("gallery")]
    people = sorted({path.split("/")[1] for path in gallery})
    known, unknown = [], []
    for path in unit:
        if path.startswith("gallery"):
            continue
        scores = {p: max(unit[path] @ unit[g] for g in gallery if f"/{p}/" in g) for p in people}
        own = path.split("/")[1]
        if path.startswith("probe") and own in people:
            rank = sum(score >= scores[own] for score in scores.values())
            known.append((rank, scores[own]))
        else:
            unknown.append(max(scores.values()))
    best = 0.0
    for barrier in sorted([score for _, score in known] + unknown):
        if np.mean(np.array(unknown) >= barrier) <= target:
            best = max(best, np.mean([r == 1 and s >= barrier for r, s in known]))
    return [np.mean([rank <= k for rank, _ in known]) for k in ranks], best, len(unknown)


@pytest.mark.parametrize("form", ["folders", "table"])
def test_folders_and_a_table_give_the_plain_numbers(folders, form):
    folder, features = folders
    parts = folder_parts(folder) if form == "folders" else {"table": folder / "table.csv"}
    found = run(Parts([], parts), computed_features(folder / "kept"), Options([0.25]))["open_set"]
    rates, tpir, unknown = plain_rates(features, (1, 5, 10, 20), 0.25)
    assert [entry["rate"] for entry in found.metrics["closed_set"]["ranks"]] == rates
    (entry,) = found.metrics["open_set"]
    assert (entry["unknown"], entry["mated"]) == (unknown, 12)  # p4 is in no gallery
    assert entry["tpir"] == pytest.approx(tpir)
    assert {"cmc", "open_set", "open_set_det"} < set(found.drawings)
    ((interval,),) = [found.uncertainty["intervals"]["open_set"]["open_set"]]
    assert interval["tpir"]["lower"] <= tpir <= interval["tpir"]["upper"]
    assert found.uncertainty["thresholds_1n"][0]["fpir"] == 0.25
    assert OPEN_SET.row(found.metrics)["TPIR@FPIR≤0.25"] == f"{tpir:.2%}"


def test_without_unknown_probes_there_is_no_open_set(folders):
    folder, _ = folders
    (folder / "probe" / "p4").rename(folder / "p4")
    parts = {side: folder / side for side in ("gallery", "probe")}
    found = run(Parts([], parts), computed_features(folder / "kept"), Options())["open_set"]
    assert "open_set" not in found.metrics
    assert set(found.drawings) == {"cmc", "resamples"}


@pytest.mark.parametrize(("change", "message"), [
    (lambda parts: {"table": parts["gallery"], **parts}, "table= and gallery=; expected one or"),
    (lambda parts: {"gallery": parts["gallery"]}, "no gallery= and probe=; it takes"),
    (lambda parts: {**parts, "root": parts["probe"]}, "root= without table=; it takes"),
    (lambda parts: {**parts, "unknown": parts["probe"]}, r"of p0, who is in the gallery"),
    (lambda parts: {**parts, "probe": parts["unknown"]}, "none of 6 probes shows a person of"),
    (lambda parts: {**parts, "unknown": parts["probe"] / "x"}, "no such folder; expected images"),
])  # fmt: skip
def test_other_parts_are_refused(folders, change, message):
    folder, _ = folders
    with pytest.raises(UserError, match=message):
        run(Parts([], change(folder_parts(folder))), FixedFeatures(None), Options())


@pytest.mark.parametrize(("line", "message"), [
    ("probe/p0/0.png,p0,probes", r"line 3: 'probe/p0/0\.png,p0,probes'; expected image,person,set"),
    ("probe/p0/0.png,,probe", "line 3: "),
    ("probe/p0/0.png,p0", "line 3: "),
    ("probe/p0/9.png,p0,probe", r"line 3: probe/p0/9\.png: no such image"),
    ("../secret.png,p0,probe", r"line 3: \.\./secret\.png: no such image"),
    ("/etc/passwd,p0,probe", "line 3: /etc/passwd: no such image"),
    ("gallery/p0/0.png,p0,probe", r"line 3: gallery/p0/0\.png again, after line 2"),
    ("unknown/q0/0.png,p0,unknown", r"line \d: unknown/q0/0\.png is unknown, but p0 is in the"),
    ('"', "no CSV that can be read"),
    ("", "no line of the set probe"),
])  # fmt: skip
def test_other_tables_are_refused(folders, line, message):
    folder, _ = folders
    (folder / "secret.png").touch()
    rows = ["image,person,set", "gallery/p0/0.png,p0,gallery", line]
    if "unknown" in line:
        rows.insert(2, "probe/p0/0.png,p0,probe")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match=message):
        run(Parts([], {"table": folder / "table.csv"}), FixedFeatures(None), Options())


FEATURE = st.sampled_from([(1, 0), (0, 1), (3, 4), (-1, 0), (4, 3)])


@given(
    st.lists(st.tuples(FEATURE, st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.tuples(FEATURE, st.integers(0, 5)), min_size=1, max_size=8),
)
def test_searches_are_those_of_plain_loops(gallery, probes):
    """With ties, one person, people with several images, probes without a mate."""
    cosine = lambda a, b: np.float32(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    people = sorted({person for _, person in gallery})
    ranks, mates, best = [], [], []
    for feature, person in probes:
        scores = {p: max(cosine(feature, g) for g, q in gallery if q == p) for p in people}
        if person in scores:
            ranks.append(sum(score >= scores[person] for score in scores.values()))
            mates.append(scores[person])
        else:
            best.append(max(scores.values()))
    shown = [column for pairs in (gallery, probes) for column in zip(*pairs, strict=True)]
    found = searched(*map(np.array, shown))
    assert found.gallery == len(people)
    assert found.ranks.tolist() == ranks
    np.testing.assert_array_equal(found.mate_scores, mates)
    np.testing.assert_array_equal(found.best_scores, best)
