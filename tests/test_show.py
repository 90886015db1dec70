import cv2
import numpy as np
import pytest

from uniface_jax.data.formats import images
from uniface_jax.data.input.contact_sheet import face_rows
from uniface_jax.data.sources.opening import open_source


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


def test_rows_of_faces_bear_their_titles_and_a_damaged_image_is_black(tmp_path):
    for name, content in (("1.png", images.encode_png(np.full((112, 112, 3), 200, np.uint8))),
                          ("2.png", b"no image")):  # fmt: skip
        (tmp_path / "ann").mkdir(exist_ok=True)
        (tmp_path / "ann" / name).write_bytes(content)
    sheet = face_rows(open_source(tmp_path), [("ann\x1b[31m é", [0, 1]), ("", [0])], columns=3)
    assert sheet.shape == (2 * (22 + 116), 3 * 116, 3)
    assert (sheet[22:134, :112] == 200).all()
    assert (sheet[22:134, 116:228] == 0).all()
    assert (sheet[22:134, 232:] == 255).all()
