"""Galleries: exact answers, and changes that are whole or not there."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uniface_jax import Gallery
from uniface_jax.errors import UserError
from uniface_jax.gallery.rows import plain_rows
from uniface_jax.native import build

D = 33


def faces(count, seed=0):
    """Return features float32 [count, D] of all lengths; some are the same, some but for length."""
    random_ = np.random.default_rng(seed)
    features = random_.standard_normal((count, D)) * random_.uniform(0.1, 9, (count, 1))
    features = features.astype(np.float32)
    if count > 200:
        features[100:140] = features[7]
        features[200] = 2 * features[7]
    return features


def brute_force(features, queries, k):
    """Return rows and cosines by a float64 product; the same cosine is one to 13 digits."""
    rows, asked = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, (features, queries))
    )
    cosines = asked @ rows.T
    numbers = np.broadcast_to(np.arange(len(rows)), cosines.shape)
    order = np.lexsort((numbers, -cosines.round(13)), axis=1)[:, :k]
    return order, np.take_along_axis(cosines, order, 1)


def names_of(features):
    return [f"{i}.jpg" for i in range(len(features))]


@pytest.fixture(scope="module")
def features():
    return faces(3000)


@pytest.fixture(scope="module")
def queries(features):
    noise = np.random.default_rng(1).standard_normal((20, D))
    return np.concatenate([noise, features[[7, 500]], features[50:55] + 0.3 * noise[:5]])


@pytest.fixture
def gallery(features, tmp_path):
    return Gallery.build(tmp_path / "g", features, names_of(features))


@pytest.mark.parametrize("k", [1, 5, 60, 4000])
@pytest.mark.parametrize("method", ["int8", "float32", "twin"])
def test_answers_are_those_of_float64(gallery, features, queries, k, method, monkeypatch):
    if method == "twin":
        monkeypatch.setattr(build, "library", lambda: None)
    answers = gallery.search(queries, k, "int8" if method == "twin" else method)
    ids, cosines = brute_force(features, queries, k)
    np.testing.assert_array_equal(answers.ids, ids)
    np.testing.assert_allclose(answers.cosines, cosines, atol=1e-15)


def test_equal_cosines_come_by_id(gallery, features):
    ids = gallery.search(features[7:8], 42).ids[0]
    assert ids.tolist() == [7, *range(100, 140), 200]


def test_removed_rows_are_no_answers_and_merging_changes_none(gallery, features, queries):
    gone = [7, 100, 2999, *gallery.search(queries, 1).ids[:, 0].tolist()]
    assert gallery.remove(gone) == len(set(gone)) == 3000 - len(gallery)
    gallery.add([plain_rows(features[:10], names_of(features[:10]))], 10)
    kept = np.setdiff1d(np.arange(3010), gone)
    both = np.concatenate([features, features[:10]])
    expected = kept[brute_force(both[kept], queries, 7)[0]]
    np.testing.assert_array_equal(gallery.search(queries, 7).ids, expected)
    again = Gallery(gallery.folder)
    np.testing.assert_array_equal(again.search(queries, 7).ids, expected)
    size = sum(path.stat().st_size for path in gallery.folder.iterdir())
    gallery.merge()
    np.testing.assert_array_equal(gallery.search(queries, 7).ids, expected)
    assert len(gallery.segments) == 1
    assert sum(path.stat().st_size for path in gallery.folder.iterdir()) < size
    with pytest.raises(UserError, match="no row has the id 7"):
        gallery.row(7)
    with pytest.raises(UserError, match="no row has the id 7"):
        gallery.remove([7])


def test_merging_takes_in_other_galleries(gallery, features, queries, tmp_path):
    others = faces(70, seed=5)
    people = [f"p{i % 7}" for i in range(70)]
    other = Gallery.build(tmp_path / "other", others, names_of(others), people)
    gallery.merge([other])
    both = np.concatenate([features, others])
    np.testing.assert_array_equal(gallery.search(queries, 9).ids, brute_force(both, queries, 9)[0])
    row = gallery.row(3011)
    assert (row.name, row.person, row.box) == ("11.jpg", "p4", None)
    assert gallery.remove(lambda row: row.person == "p4") == 10
    assert len(gallery) == 3060


def test_approximate_search_has_exact_cosines_and_a_measured_recall(gallery, features, queries):
    (found,) = gallery.index()
    assert found["recall"] > 0.9
    gallery.remove([7])
    gallery.add([plain_rows(features[:10], names_of(features[:10]))], 10)  # without an index
    answers, exact = (gallery.search(queries, 10, m) for m in ("approximate", "int8"))
    shared = [len(set(a) & set(b)) for a, b in zip(answers.ids, exact.ids, strict=True)]
    assert np.mean(shared) > 9
    both = np.concatenate([features, features[:10]])
    for number, query in enumerate(queries):
        rows = both[answers.ids[number]].astype(float)
        cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(answers.cosines[number], cosines, atol=1e-15)
    assert 7 not in answers.ids


def test_an_index_of_somebody_else_is_not_read(gallery, queries):
    gallery.index()
    (file,) = gallery.folder.glob("*.index")
    changed(file, 100)
    with pytest.raises(UserError, match="not built by this user, or changed since"):
        gallery.search(queries, 1, "approximate")
    assert gallery.search(queries, 1).ids.shape == (len(queries), 1)


def test_a_gallery_that_is_empty_answers_with_nothing(queries, tmp_path):
    gallery = Gallery.create(tmp_path / "g", D)
    assert gallery.search(queries, 3).ids.shape == (len(queries), 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: g.search(np.ones((2, 5))), r"queries \[2, 5\]: expected \[Q, 33\]"),
        (lambda g: g.search(np.zeros((1, D))), "query 0: a feature of length 0.0; it has no"),
        (lambda g: g.search(np.full((1, D), np.nan)), "query 0: a feature of length nan"),
        (lambda g: g.search(np.ones((1, D)), 0), "k=0: expected at least 1"),
        (lambda g: g.search(np.ones((1, D)), 1, "int4"), "method=int4: expected one of int8"),
        (lambda g: g.add([plain_rows(np.ones((1, 5)), "a")], 1), "5 numbers; expected 33"),
        (lambda g: g.add([plain_rows(np.zeros((1, D)), "a")], 1), "a: a feature of length 0.0"),
        (lambda g: g.add([plain_rows(np.ones((1, D)), "a")], 2), "1 rows; expected 2"),
        (lambda g: g.add([plain_rows(np.ones((2, D)), "ab")], 1), "more than 1 rows"),
        (lambda g: g.remove([3000]), "no row has the id 3000"),
        (lambda g: Gallery.create(g.folder, D), "a gallery is there already"),
        (lambda g: Gallery(g.folder / "none"), r"manifest\.json: .*gallery build makes a gallery"),
    ],
)
def test_bad_input_changes_nothing(gallery, call, words):
    before = sorted(path.name for path in gallery.folder.iterdir())
    with pytest.raises(UserError, match=words):
        call(gallery)
    assert sorted(path.name for path in gallery.folder.iterdir()) == before


def changed(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["codes", "scales", "errors", "ids", "names", "manifest"])
def test_a_changed_bit_is_found_at_opening(gallery, suffix):
    (file,) = gallery.folder.glob("manifest.json" if suffix == "manifest" else f"*.{suffix}")
    changed(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=f"{suffix}.*(damaged|not JSON|not the manifest)"):
        Gallery(gallery.folder)


def test_a_changed_bit_of_a_feature_is_found_when_it_is_ranked(gallery, features):
    (file,) = gallery.folder.glob("*.features")
    changed(file, 128 + 4 * D * 500)
    with pytest.raises(UserError, match=r"\.features: damaged"):
        Gallery(gallery.folder).search(features[500:501])
    os.truncate(file, 5000)
    with pytest.raises(UserError, match=r"\.features: damaged"):
        Gallery(gallery.folder)


@pytest.mark.parametrize("stem", ["../../etc/passwd", "s/../../../../../../../../../etc/pass"])
def test_a_manifest_that_leads_elsewhere_is_refused(gallery, stem):
    from dataclasses import replace

    from uniface_jax.gallery.manifest import write_manifest

    (entry,) = gallery.manifest.segments
    manifest = replace(gallery.manifest, segments=(replace(entry, stem=stem),))
    write_manifest(gallery.folder, manifest)
    with pytest.raises(UserError, match="not the manifest of a gallery"):
        Gallery(gallery.folder)


def test_readers_beside_a_writer_see_whole_states(tmp_path):
    """Each state has 10 rows more; a reader sees a multiple of 10, and its answers are there."""
    folder, part = tmp_path / "g", faces(10)
    Gallery.build(folder, part, names_of(part))
    stop = threading.Event()

    def write():
        writer = Gallery(folder)
        while not stop.is_set():
            writer.add([plain_rows(part, names_of(part))], 10)
            if len(writer) > 60:
                writer.remove(range(writer.manifest.next_id - 50, writer.manifest.next_id))
                writer.merge()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(15):
            seen = Gallery(folder)
            assert len(seen) % 10 == 0
            ids = seen.search(part, 1).ids[:, 0]
            assert ids.tolist() == list(range(10))
    finally:
        stop.set()
        thread.join()


# Imports once, and forks a writer for each line that it reads; says the writer's number.
WRITERS = """
import os
import sys
import numpy as np
from uniface_jax import Gallery
from uniface_jax.gallery.rows import plain_rows

def write():
    gallery = Gallery(sys.argv[1])
    print(os.getpid(), flush=True)
    part = np.random.default_rng(2).standard_normal((10, 33)).astype(np.float32)
    while True:
        gallery.add([plain_rows(part, [f"{i}.jpg" for i in range(10)])], 10)
        ids = sorted(row.id for row in gallery.rows())
        gallery.remove(ids[10:20])
        if gallery.manifest.generation % 5 == 0:
            gallery.merge()

for _ in sys.stdin:
    child = os.fork()
    if not child:
        write()
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def killed(tmp_path):
    """Lets a writer change the gallery tmp_path/g for some seconds, and then kills it."""
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "g")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as writers:

        def kill_after(seconds):
            writers.stdin.write("\n")
            writers.stdin.flush()
            writer = int(writers.stdout.readline())
            time.sleep(seconds)
            os.kill(writer, signal.SIGKILL)
            assert writers.stdout.readline() == "ended\n"

        yield kill_after


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_while_it_changes_a_gallery_is_one_of_its_states(tmp_path, killed, kills):
    """Rows are in tens with the same ten features: any state answers with one of each ten."""
    folder, moments = tmp_path / "g", random.Random(kills)
    part = np.random.default_rng(2).standard_normal((10, D)).astype(np.float32)
    Gallery.build(folder, part, names_of(part))
    generations = set()
    for _ in range(kills):
        killed(moments.uniform(0, 0.1))
        seen = Gallery(folder)
        generations.add(seen.manifest.generation)
        rows = {row.id: row.name for row in seen.rows()}
        assert len(rows) == len(seen) in (10, 20)
        answers = seen.search(part, len(seen))
        for number, ids in enumerate(answers.ids):
            best = [i for i, name in rows.items() if name == f"{number}.jpg"]
            assert ids[: len(best)].tolist() == sorted(best)
        seen.add([plain_rows(part, names_of(part))], 10)
        assert len(seen) == len(rows) + 10
        seen.remove(sorted(row.id for row in seen.rows())[10:])
        stems = {path.name.split(".")[0] for path in folder.iterdir() if path.name[0] in "sr"}
        assert stems == seen.manifest.stems()
    assert len(generations) == kills
