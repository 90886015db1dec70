"""Sets are found by the names of their files, wherever they lie in a folder."""

import pytest

from tests.helpers.containers import FOLDER
from uniface_jax.errors import UserError
from uniface_jax.evaluate.suite.finding import find_sets


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_fixtures_sets_are_found():
    sets, notes = find_sets(FOLDER)
    assert {one.name: one.protocol for one in sets} == {
        "lfw": "lists", "calfw": "lists", "cplfw": "lists", "rfw": "rfw", "tinyface": "tinyface",
    }  # fmt: skip
    assert notes == []


def test_every_kind_is_found(tmp_path):
    touch(
        tmp_path,
        "bins/lfw.bin", "bins/agedb_30.xz", "bins/other.bin", "lists/pairs.txt",
        "IJBC/meta/ijbc_face_tid_mid.txt", "x/ijbb/meta/ijbb_face_tid_mid.txt",
        "mega/facescrub_images/a/1.png", "mega/megaface_images/1.png", "mega/facescrub_noises.txt",
        "rfw/Asian_test.bin", "mfr_own/all/p/1.png", "mfr_own/populations.csv",
        "tiny/Testing_Set/Probe/1_1.jpg", "a/b/c/d/cplfw.bin",
    )  # fmt: skip
    sets, notes = find_sets(tmp_path)
    names = [one.name for one in sets]
    assert names == ["lfw", "agedb", "ijbb", "ijbc", "megaface", "mfr", "rfw", "tinyface"]
    by_name = {one.name: one for one in sets}
    assert by_name["megaface"].parts.named.keys() == {"probes", "distractors", "noisy_probes"}
    assert by_name["mfr"].parts.named.keys() == {"all", "populations"}
    assert by_name["lfw"].protocol == "verification"
    assert notes == [f"lfw: {tmp_path}/lists/pairs.txt is left out, beside {tmp_path}/bins/lfw.bin"]


def test_folders_of_people_and_links_in_circles_are_not_walked(tmp_path):
    for person in range(201):
        touch(tmp_path, f"people/{person}/lfw.bin")
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(UserError, match="no set in it; looked for lfw, cfp_fp"):
        find_sets(tmp_path)
    with pytest.raises(UserError, match="none: no such folder"):
        find_sets(tmp_path / "none")
