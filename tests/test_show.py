import cv2
import numpy as np
import pytest

from uniface_jax.data.formats import images
from uniface_jax.data.input.augment import Augment
from uniface_jax.data.input.contact_sheet import chosen_records, contact_sheet
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source


def test_rows_hold_the_images_and_their_mirrors(faces):
    source = FolderSource(faces)
    sheet = contact_sheet(source, Augment(), identities=2, columns=3, seed=0)
    assert sheet.shape == (2 * (22 + 2 * 116), 3 * 116, 3)
    records = next(iter(chosen_records(source, 2, 3, 0).values()))
    for place, record in enumerate(records):
        face = images.decode(source[record].image, "a")
        left = slice(place * 116, place * 116 + 112)
        np.testing.assert_array_equal(sheet[22:134, left], face)
        below = sheet[138:250, left]
        assert (below == face).all() or (below == face[:, ::-1]).all()


def test_few_images_leave_gaps_and_large_sets_are_not_read_whole():
    few = chosen_records(open_source("synthetic:3:5"), 8, 4, 0)
    assert {label: len(records) for label, records in few.items()} == {0: 2, 1: 2, 2: 1}
    many = chosen_records(open_source("synthetic:97:900000000"), 8, 4, 0)
    assert [len(records) for records in many.values()] == [4] * 8


def test_command(dataset, tmp_path, run_cli):
    output = tmp_path / "sheet.png"
    done = run_cli("show", dataset, f"--output={output}", "--identities=2", "--columns=3")
    assert done.returncode == 0, done.stderr
    assert "23 images of 3 classes" in done.stdout
    assert "images of a class: median 7, from 5 to 11" in done.stdout
    assert cv2.imread(str(output)).shape == (2 * (22 + 2 * 116), 3 * 116, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--output=a.png"], "nowhere: no such file"),
        (["synthetic:2:4", "--output=a.jpg"], "ends in .png"),
    ],
)
def test_bad_input(arguments, words, run_cli):
    done = run_cli("show", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
