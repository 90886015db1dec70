"""Folders of photographs, aligned and reported."""

import numpy as np
import pytest

from uniface_jax.data.faces.align_folders import REPORT_FILE, align_folders
from uniface_jax.data.faces.alignment import align
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
