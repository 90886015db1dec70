"""Kept features: whole, unchanged, and the user's own, or computed again."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.feature_sources import MODEL, computed_features, corners_both
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import ComputedFeatures, GivenFeatures
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.sets.image_sets import FileDigests, ImageFiles
from uniface_jax.files.own_folder import KnownDigests

FLIPS = 200


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 112, 112, 3), np.uint8)


@pytest.fixture
def images(tmp_path, pixels):
    folder = tmp_path / "people"
    folder.mkdir()
    names = [f"{i}.png" for i in range(len(pixels))]
    for name, face in zip(names, pixels, strict=True):
        (folder / name).write_bytes(encode_png(face))
    return ImageFiles("people", folder, names)


class Watched:
    """A model that counts what it embeds, and does something else before one of the batches."""

    def __init__(self, before=None, at=0):
        self.batches, self._before, self._at = 0, before, at
        self.model = replace(MODEL, embed=self)

    def __call__(self, batch):
        if self._before and self.batches == self._at:
            before, self._before = self._before, None
            before()
        self.batches += 1
        return corners_both(batch)


class Killed(BaseException):
    """Pass by every handler, as a kill does."""


def kill():
    raise Killed


def computed_by(watched, kept):
    return computed_features(kept, watched.model, batch_size=2)


def test_two_evaluations_share_a_cache_and_one_is_killed(tmp_path, images, pixels, capsys):
    """The second begins while the first is at work, and dies: the first ends with its own rows."""
    kept = tmp_path / "kept"

    def second():
        with pytest.raises(Killed):
            computed_by(Watched(kill, at=1), kept).features(images)

    first = computed_by(Watched(second, at=3), kept).features(images)
    np.testing.assert_array_equal(first.values, corners_both(pixels))
    assert "another evaluation computes these features" in capsys.readouterr().out
    resumed = Watched()
    again = computed_by(resumed, kept).features(images)
    np.testing.assert_array_equal(again.values, first.values)
    assert resumed.batches == 0
    assert f"features taken from {first.record['features']}" in capsys.readouterr().out


def test_both_of_two_evaluations_end(tmp_path, images, pixels):
    kept, seen = tmp_path / "kept", []

    def second():
        seen.append(computed_by(Watched(), kept).features(images).values)

    found = computed_by(Watched(second, at=2), kept).features(images)
    for values in (found.values, *seen):
        np.testing.assert_array_equal(values, corners_both(pixels))
    assert len(seen) == 1
    names = sorted(path.name for path in kept.iterdir() if path.is_file())
    assert [Path(name).suffix for name in names] == [".json", ".npy"]


def test_a_part_that_changed_is_not_resumed(tmp_path, images, pixels):
    kept = tmp_path / "kept"
    with pytest.raises(Killed):
        computed_by(Watched(kill, at=3), kept).features(images)
    (part,) = kept.glob("*.part-*.npy")
    content = bytearray(part.read_bytes())
    content[150] ^= 1
    part.write_bytes(content)
    watched = Watched()
    found = computed_by(watched, kept).features(images)
    np.testing.assert_array_equal(found.values, corners_both(pixels))
    assert watched.batches == 5
    assert not list(kept.glob("*.part-*"))


def planted(kept, images):
    """Features from elsewhere: another person's work, who wrote ones that serve their purpose."""
    other = FeatureCache(kept, KnownDigests(kept / "of another user"))
    wrong = replace(MODEL, embed=lambda batch: np.ones((len(batch), 4), np.float32))
    return Path(
        ComputedFeatures(wrong, other, 2, FileDigests()).features(images).record["features"]
    )


def test_features_from_elsewhere_are_computed_again(tmp_path, images, pixels, capsys):
    kept = tmp_path / "kept"
    file = planted(kept, images)
    found = computed_by(Watched(), kept).features(images)
    assert found.record["features"] == str(file)
    np.testing.assert_array_equal(found.values, corners_both(pixels))
    said = capsys.readouterr().out
    assert f"{file}: features that this user's programs have not computed" in said
    assert f"{file}: other features than were computed now; replaced" in said


def test_features_from_elsewhere_are_taken_when_they_are_trusted(tmp_path, images, capsys):
    kept = tmp_path / "kept"
    file = planted(kept, images)
    cache = FeatureCache(kept, KnownDigests(None), trust=True)
    found = ComputedFeatures(MODEL, cache, 2, FileDigests()).features(images)
    assert found.values.tolist() == np.ones((9, 4)).tolist()
    assert f"features taken from {file}, trusted as they are" in capsys.readouterr().out


@pytest.mark.parametrize("same_input", [True, False])
def test_features_of_a_former_version_that_described_the_model_otherwise(
    tmp_path, images, pixels, same_input
):
    """They stay where they are the same, and where they are not: another input may need them."""
    kept, former = tmp_path / "kept", replace(MODEL, description="12 pixels")
    if not same_input:
        former = replace(former, embed=lambda batch: 2 * corners_both(batch))
    source = ComputedFeatures(former, kept, 2, FileDigests())
    file = Path(source.features(images).record["features"])
    beside = file.with_suffix(".json")
    record = json.loads(beside.read_text())
    del record["digest"], record["check"]
    beside.write_text(json.dumps(record))
    written, watched = file.read_bytes(), Watched()
    for _ in range(2):
        found = computed_by(watched, kept).features(images)
        np.testing.assert_array_equal(found.values, corners_both(pixels))
        assert (found.record["features"] == str(file)) == same_input
        assert file.read_bytes() == written
    assert watched.batches == 5


@pytest.mark.parametrize("has_digest", [True, False])
def test_features_of_another_machine_stay_where_they_are_the_same(
    tmp_path, images, capsys, has_digest
):
    kept = tmp_path / "kept"
    file = Path(computed_features(kept).features(images).record["features"])
    shutil.rmtree(kept / "known")
    rounded = np.load(file) * np.float32(1 + 1e-6)
    np.save(file, rounded)
    if has_digest:  # which tells rounding from a flipped bit
        watched = replace(MODEL, embed=lambda batch: corners_both(batch) * np.float32(1 + 1e-6))
        file.unlink()
        other = FeatureCache(kept, KnownDigests(None))
        ComputedFeatures(watched, other, 2, FileDigests()).features(images)
    else:
        beside = file.with_suffix(".json")
        record = json.loads(beside.read_text())
        del record["digest"], record["check"]  # as before 0.3
        beside.write_text(json.dumps(record))
    written = file.read_bytes()
    found = computed_by(Watched(), kept).features(images)
    np.testing.assert_array_equal(found.values, rounded)
    assert file.read_bytes() == written
    assert f"{file}: the same features as computed now; kept" in capsys.readouterr().out
    watched = Watched()
    computed_by(watched, kept).features(images)
    assert watched.batches == 0


def test_a_flipped_bit_is_noticed(tmp_path, images, pixels):
    """Flip bits of the array and of the JSON beside it, for who computes and who is given them."""
    images = ImageFiles("people", images.root, images.names[:2])
    kept, right = tmp_path / "kept", corners_both(pixels[:2])
    digest = computed_features(kept).features(images).record["sha256"]
    files = [path for path in sorted(kept.iterdir()) if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    draw, noticed = random.Random(0), 0
    for _ in range(FLIPS):
        for path, content in before.items():
            path.write_bytes(content)
        path = draw.choice(files)
        content = bytearray(before[path])
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            source = GivenFeatures.open({"": kept}, lambda *_: digest)
            given = source.features(images).values
            assert source.name in ("corners", "kept")
            np.testing.assert_array_equal(given, right)
        except UserError:
            noticed += 1
        found = computed_features(kept).features(images)
        np.testing.assert_array_equal(found.values, right)
    assert noticed > FLIPS / 2


def test_the_files_of_two_sets_with_equal_names_sizes_and_times_are_told_apart(tmp_path, images):
    """By what they hold, though a memory is shared; a copy in another place is known again."""
    memory = FileDigests(tmp_path / "memory")
    digest = images.digest(memory)
    other = tmp_path / "other"
    shutil.copytree(images.root, other)
    same = ImageFiles("people", other, images.names)
    assert same.digest(memory) == digest
    for name in images.names:
        file, like = other / name, (images.root / name).stat()
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(like.st_atime_ns, like.st_mtime_ns))
    assert (other / "0.png").stat().st_mtime_ns == (images.root / "0.png").stat().st_mtime_ns
    for files in (memory, FileDigests(tmp_path / "memory")):
        assert same.digest(files) != digest
        assert images.digest(files) == digest


def test_a_full_disk_is_named_and_leaves_no_part(tmp_path, images, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"people-.*\.npy: cannot be written \(No space left"):
        computed_features(tmp_path / "kept").features(images)
    assert not list((tmp_path / "kept").glob("*.npy"))


def test_a_record_says_what_was_written(tmp_path, images):
    file = Path(computed_features(tmp_path / "kept").features(images).record["features"])
    record = json.loads(file.with_suffix(".json").read_text())
    assert (tmp_path / "kept" / "known" / record["digest"]).is_file()
    assert record["model"]["name"] == "corners"
    file.with_suffix(".json").write_text(json.dumps({**record, "done": 8}))
    with pytest.raises(UserError, match=r"0 finished arrays for people; .*json: damaged"):
        GivenFeatures.open({"": tmp_path / "kept"}, FileDigests()).features(images)
