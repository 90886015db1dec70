"""Folders of photographs, aligned and reported."""

import json

import numpy as np
import pytest

from uniface_jax.data.faces.align_folders import REPORT_FILE, align_folders, open_photographs
from uniface_jax.data.faces.alignment import CHOICES, Face, align
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError


def test_folders_are_aligned_and_reported(tmp_path, detector, photo):
    source, destination = tmp_path / "photos", tmp_path / "faces"
    for identity in ("ann", "bob"):
        (source / identity).mkdir(parents=True)
    (source / "ann" / "1.png").write_bytes(images.encode_png(photo))
    (source / "ann" / "1.jpg").write_bytes(images.encode_jpeg(photo))
    two = np.concatenate([photo, photo], 1)
    (source / "ann" / "two.png").write_bytes(images.encode_png(two))
    noise = np.random.RandomState(0).randint(0, 256, (112, 92, 3), np.uint8)
    (source / "bob" / "none.png").write_bytes(images.encode_png(noise))
    (source / "bob" / "torn.png").write_bytes(images.encode_png(photo)[:500])
    (source / "bob" / "list.txt").write_text("x")
    report = align_folders(FolderSource(source), destination, detector)
    assert (report.aligned, report.already_done) == (3, 0)
    assert report.no_face == ["bob/none.png"]
    assert report.unreadable == ["bob/torn.png"]
    assert report.several_faces == ["ann/two.png"]
    assert report.skipped == ["bob/list.txt"]
    written = {str(f.relative_to(destination)) for f in destination.rglob("*") if f.is_file()}
    assert written == {"ann/1.png.png", "ann/1.jpg.png", "ann/two.png", REPORT_FILE}
    face = images.decode((destination / "ann" / "1.png.png").read_bytes(), "face")
    (found,) = detector.detect(photo)
    assert (face == align(photo, found.landmarks)).all()

    kept = (destination / "ann" / "two.png").stat().st_mtime_ns
    (destination / "ann" / "1.jpg.png").unlink()
    again = align_folders(FolderSource(source), destination, detector)
    assert (again.aligned, again.already_done) == (3, 2)
    assert again.several_faces == ["ann/two.png"]
    assert (destination / "ann" / "two.png").stat().st_mtime_ns == kept

    other = tmp_path / "other"
    (other / "ann").mkdir(parents=True)
    (other / "ann" / "1.png").write_bytes(images.encode_png(photo))
    with pytest.raises(UserError, match="holds the faces of"):
        align_folders(FolderSource(other), destination, detector)
    with pytest.raises(UserError, match="DEST must lie outside"):
        align_folders(FolderSource(source), source / "aligned", detector)


def test_the_report_says_what_became_what(tmp_path, detector, photo):
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    (tmp_path / "photos" / "ann" / "1.jpg").write_bytes(images.encode_jpeg(photo))
    align_folders(FolderSource(tmp_path / "photos"), tmp_path / "faces", detector)
    report = json.loads((tmp_path / "faces" / REPORT_FILE).read_text())
    (entry,) = report["faces"].values()
    (found,) = detector.detect(images.decode(images.encode_jpeg(photo), "1"))
    assert list(report["faces"]) == ["ann/1.jpg"]
    assert (entry["file"], entry["found"]) == ("ann/1.png", 1)
    np.testing.assert_allclose(entry["box"], found.box, atol=0.01)
    np.testing.assert_allclose(entry["landmarks"], found.landmarks, atol=0.01)
    assert entry["score"] == pytest.approx(found.score, abs=1e-4)
    align_folders(FolderSource(tmp_path / "photos"), tmp_path / "faces", detector)
    assert json.loads((tmp_path / "faces" / REPORT_FILE).read_text())["faces"] == report["faces"]
    assert FolderSource(tmp_path / "faces").skipped == []


def test_one_folder_of_photographs(tmp_path, detector, photo):
    (tmp_path / "photos" / "@eaDir").mkdir(parents=True)
    (tmp_path / "photos" / "me.jpg").write_bytes(images.encode_jpeg(photo))
    (tmp_path / "photos" / "notes.txt").touch()
    report = align_folders(open_photographs(tmp_path / "photos"), tmp_path / "faces", detector)
    assert (report.aligned, report.skipped) == (1, ["notes.txt"])
    assert (tmp_path / "faces" / "me.png").is_file()
    (tmp_path / "photos" / "bob").mkdir()
    with pytest.raises(UserError, match="an identity folder without an image"):
        open_photographs(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no identity folders"):
        open_photographs(tmp_path / "empty")


def faces_of(choose):
    """Return which of three made-up faces in an image of 300x200 is taken."""
    found = [
        Face(np.array([5.0, 5, 190, 190]), np.zeros((5, 2)), 0.8),  # largest
        Face(np.array([130.0, 80, 40, 40]), np.zeros((5, 2)), 0.7),  # in the center
        Face(np.array([250.0, 150, 30, 30]), np.zeros((5, 2)), 0.9),  # surest
    ]
    rule = CHOICES[choose]
    return max(range(3), key=lambda i: rule(found[i], (200, 300, 3)))


def test_rules_of_choice(tmp_path, detector, photo):
    assert [faces_of(choose) for choose in ("prominent", "largest", "centre", "score")] == [
        0, 0, 1, 2,
    ]  # fmt: skip
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(images.encode_jpeg(photo))
    source = open_photographs(tmp_path / "photos")
    align_folders(source, tmp_path / "faces", detector, "largest")
    with pytest.raises(UserError, match="holds faces chosen by largest, not by centre"):
        align_folders(source, tmp_path / "faces", detector, "centre")


def test_an_interrupted_run_reports_what_it_has(tmp_path, detector, photo, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "photos" / name).write_bytes(images.encode_jpeg(photo))
    source, destination = open_photographs(tmp_path / "photos"), tmp_path / "faces"
    align_folders(source, destination, detector)
    whole = json.loads((destination / REPORT_FILE).read_text())["faces"]
    (destination / "1.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(detector, "detect", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            align_folders(source, destination, detector)
    assert json.loads((destination / REPORT_FILE).read_text())["faces"] == whole


@pytest.mark.parametrize(
    "change",
    [
        {"several_faces": [["a"]]}, {"several_faces": {}}, {"faces": {"a": 3}}, {"faces": []},
        {"faces": {"a": {"box": [[]] * 3}}, "no_face": 7}, {"source": 3}, {"aligned": "x"},
        {"skipped": None}, {"choose": []}, {"more": 1},
    ],
)  # fmt: skip
def test_a_report_of_other_types_is_refused(tmp_path, change):
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    (tmp_path / "photos" / "ann" / "1.jpg").write_bytes(b"x")
    (tmp_path / "faces").mkdir()
    report = {"source": str(tmp_path / "photos"), **change}
    (tmp_path / "faces" / REPORT_FILE).write_text(json.dumps(report))
    with pytest.raises(UserError, match=rf"{REPORT_FILE}: not the report of an alignment"):
        align_folders(FolderSource(tmp_path / "photos"), tmp_path / "faces", None)
