import cv2
import pytest


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
