"""Pairs of one's own as a CSV, against a loop over them; and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.feature_sources import computed_features, corners, corners_both
from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.metrics.verification import verification_metrics
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.pairs import PAIRS, run


@pytest.fixture
def people(tmp_path):
    """(folder p0 … p3 of three images each, their pixels, the CSV's rows)."""
    rng = np.random.default_rng(5)
    pixels, rows = {}, []
    for i in range(12):
        name = f"p{i // 3}/{i % 3}.png"
        pixels[name] = rng.integers(0, 256, (112, 112, 3), np.uint8)
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(encode_png(pixels[name]))
    names = list(pixels)
    for i in range(12):
        other = 3 * (i // 3) + (i + 1) % 3 if i % 2 else (i + 4) % 12
        rows.append((names[i], names[other], i % 2))
    return tmp_path, pixels, rows


def write(folder, rows, head="first,second,same\n"):
    text = "".join(f"{first}, {second},{same}\n" for first, second, same in rows)
    (folder / "mine.csv").write_text(head + text)
    return folder / "mine.csv"


@pytest.mark.parametrize("head", ["", "First,Second,Same\r\n", "\n"])
def test_a_list_is_evaluated_like_a_bin(people, head):
    folder, pixels, rows = people
    write(folder, rows, head)
    parts = Parts([folder / "mine.csv"], {"root": folder / "faces"})
    found = run(parts, computed_features(folder / "kept"), Options([0.5]))["mine"]
    cosines = []
    for first, second, _ in rows:
        a, b = (corners_both(pixels[n][None])[0].astype(float) for n in (first, second))
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    cosines, same = np.array(cosines), np.array([s == 1 for *_, s in rows])
    wins = [a > b for a in cosines[same] for b in cosines[~same]]
    assert found.metrics["auc"] == np.mean(wins)
    barrier = sorted(cosines[~same], reverse=True)[3]  # half of six may be accepted
    assert found.metrics["tar_at_far"][0]["strict"]["tar"] == np.mean(cosines[same] > barrier)
    shown = found.drawings["pairs"]["same"][0]
    lowest = int(np.argmin(np.where(same, cosines, 2)))
    assert [side["label"] for side in shown["sides"]] == list(rows[lowest][:2])
    assert shown["score"] == pytest.approx(cosines[lowest])
    assert PAIRS.row(found.metrics)["pairs"] == "12"


def test_images_are_beside_the_list_where_no_root_is_given(people):
    folder, pixels, rows = people
    write(folder / "faces", rows)
    found = run(Parts([folder / "faces/mine.csv"]), computed_features(folder / "kept"), Options())
    names = list(dict.fromkeys(name for row in rows for name in row[:2]))
    plain = corners(np.stack([pixels[name] for name in names]))
    number = {name: i for i, name in enumerate(names)}
    pairs = PairSet(
        "mine",
        [],
        np.array([number[a] for a, _, _ in rows]),
        np.array([number[b] for _, b, _ in rows]),
        np.array([s == 1 for *_, s in rows]),
    )
    assert found["mine"].metrics["without_mirror"] == verification_metrics(plain, pairs)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p0/0.png,p1/0.png", r"mine\.csv: line 4: 'p0/0\.png,p1/0\.png'; expected first,second"),
        ("p0/0.png,p1/0.png,2", r"mine\.csv: line 4: .*; expected first,second,same"),
        ("p0/0.png,p9/0.png,1", r"mine\.csv: line 4: .*p9/0\.png: no such image"),
        ('p0/0.png,"p9/0.png,1', r"mine\.csv: no CSV"),
    ],
)
def test_a_damaged_list_names_its_line(people, line, message):
    folder, _, rows = people
    text = write(folder, rows).read_text().splitlines()
    text[3] = line
    (folder / "mine.csv").write_text("\n".join(text))
    with pytest.raises(UserError, match=message):
        run(
            Parts([folder / "mine.csv"], {"root": folder / "faces"}),
            computed_features(folder),
            Options(),
        )


def test_lists_that_cannot_be_evaluated_are_named(people):
    folder, _, rows = people
    parts = Parts([folder / "mine.csv"], {"root": folder / "faces"})
    for content, message in [
        ([], "no pairs"),
        (rows[:9], "9 pairs; 10 folds need"),
        ([(a, b, 1) for a, b, _ in rows], "all 12 pairs are same"),
    ]:
        write(folder, content)
        with pytest.raises(UserError, match=rf"mine\.csv: {message}"):
            run(parts, computed_features(folder), Options())
    with pytest.raises(UserError, match="no CSV, only root="):
        run(Parts([], {"root": folder}), computed_features(folder), Options())


@given(st.integers(10, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_the_metrics_are_those_of_counting(count, seed, ties):
    """TAR at FAR and AUC of random pairs, many of equal score, by counting over all thresholds."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((6, 3)) if not ties else np.eye(3)[rng.integers(0, 3, 6)]
    same = rng.random(count) < 0.5
    same[:2] = [True, False]
    first, second = rng.integers(0, 6, (2, count))
    found = verification_metrics(features, PairSet("x", [], first, second, same), [0.1, 0.3, 1])
    # Lengths as they are taken there, so that what is equal there is equal here.
    unit = features / np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
    scores = np.array([np.sum(unit[a] * unit[b]) for a, b in zip(first, second, strict=True)])
    wins = [(a > b) + (a == b) / 2 for a in scores[same] for b in scores[~same]]
    assert found["auc"] == pytest.approx(np.mean(wins), abs=1e-12)
    for entry in found["tar_at_far"]:
        tars = [
            np.mean(scores[same] >= t)
            for t in [np.inf, *scores]
            if np.mean(scores[~same] >= t) <= entry["far"]
        ]
        assert entry["strict"]["tar"] == max(tars)
